"""How a swarm decides: each decision is the function of its output node, and hears the texts of those joined to it.

A decision on no message is the empty text: an answer like any other, and a wrong one. Choices at random are seeded by
what is chosen from, so the same votes on the same task give the same choice, in whatever order calls finish.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from mindworks.agents.graph import content_of
from mindworks.agents.messages import Message

if TYPE_CHECKING:
    from mindworks.agents.models import Chat, ChatModel

Messages = tuple[Message, ...]
Decision = Callable[[Any, Messages], Awaitable[str]]

_CHOICE = re.compile(r"choice\W*(\d+)", re.IGNORECASE)


def as_said(text: str) -> str | None:
    """Return `text` without the blanks around it, None where nothing is left."""
    return text.strip() or None


@dataclass(frozen=True)
class MajorityVote:
    """The vote that most members cast; a tie is broken by a seeded draw among the leading votes."""

    read: Callable[[str], str | None] = as_said
    """takes the vote from a text; None abstains"""
    seed: int = 0
    """of the draws that break ties"""

    async def __call__(self, task: Any, messages: Messages) -> str:
        """Return the vote with the largest count, the empty text where nobody votes."""
        votes = Counter(vote for message in messages if (vote := self.read(message.text)) is not None)
        most = max(votes.values(), default=0)
        leading = sorted(vote for vote, count in votes.items() if count == most)
        return _draw(self.seed, task, leading) if leading else ""


@dataclass(frozen=True)
class FirstAnswer:
    """The first message, in the order of the swarm's nodes."""

    async def __call__(self, task: Any, messages: Messages) -> str:
        """Return the first text."""
        return messages[0].text if messages else ""


@dataclass(frozen=True)
class RandomChoice:
    """One of the messages, drawn uniformly."""

    seed: int = 0
    """of the draws"""

    async def __call__(self, task: Any, messages: Messages) -> str:
        """Return the drawn text."""
        return _draw(self.seed, task, [message.text for message in messages]) if messages else ""


@dataclass(frozen=True)
class References:
    """A language model answers the task itself, with the members' texts as references."""

    model: ChatModel
    """the model that answers"""
    prompt: str = "Answer the task. Use what others answered as references: weigh them, and correct what is wrong."
    """its system message"""
    settings: dict[str, Any] = field(default_factory=dict)
    """settings of its call, such as a temperature"""

    async def __call__(self, task: Any, messages: Messages) -> str:
        """Return the model's reply."""
        return await _ask(self.model, self.prompt, task, messages, self.settings) if messages else ""


@dataclass(frozen=True)
class _Selection:
    model: ChatModel
    """the model that selects; a single message needs none"""
    prompt: str
    """its system message; the reply must name the number of an answer"""
    settings: dict[str, Any] = field(default_factory=dict)
    """settings of its call, such as a temperature"""

    async def __call__(self, task: Any, messages: Messages) -> str:
        """Return the selected text; raises `ValueError` for a reply that names none of the answers."""
        if len(messages) < 2:
            return messages[0].text if messages else ""
        # numbers instead of names: a name must not speak for an answer
        numbered = tuple(Message(f"answer {number}", message.text) for number, message in enumerate(messages, 1))
        ending = f'End your reply with "Choice: N", where N is a number from 1 to {len(messages)}.'
        reply = await _ask(self.model, f"{self.prompt} {ending}", task, numbered, self.settings)
        return messages[chosen_number(reply, len(messages)) - 1].text


@dataclass(frozen=True)
class SelfConsistency(_Selection):
    """A language model selects the answer that agrees with most others in meaning."""

    prompt: str = "Read the numbered answers to the task. Select the one that most of the others agree with in meaning."


@dataclass(frozen=True)
class SelectBest(_Selection):
    """A language model selects the best answer."""

    prompt: str = "Read the numbered answers to the task. Select the one that answers it best."


def chosen_number(reply: str, count: int) -> int:
    """Return the number from 1 to `count` that `reply` chooses: its last `Choice: N`, or the only number in it.

    Raises `ValueError` for a reply that chooses none.
    """
    marked = _CHOICE.findall(reply)
    numbers = {int(number) for number in re.findall(r"\d+", reply)}
    number = int(marked[-1]) if marked else numbers.pop() if len(numbers) == 1 else 0
    if not 1 <= number <= count:
        raise ValueError(f"the reply must choose a number from 1 to {count}, got {reply!r}")
    return number


async def _ask(model: ChatModel, prompt: str, task: Any, messages: Messages, settings: dict[str, Any]) -> str:
    chat: Chat = [{"role": "system", "content": prompt}, {"role": "user", "content": content_of(task, messages)}]
    return (await model.chat(chat, **settings)).text


def _draw(seed: int, task: Any, options: list[str]) -> str:
    # addresses of objects differ between runs
    told = re.sub(r" at 0x[0-9a-f]+", "", task if isinstance(task, str) else repr(task))
    digest = sha256("\x00".join([str(seed), told, *options]).encode("utf-8", "surrogatepass")).digest()
    return random.Random(int.from_bytes(digest, "big")).choice(options)
