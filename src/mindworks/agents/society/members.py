"""Members of a society: each is asked a question and answers in text, whatever it is made of.

A language model, a function, a person and a small neural network (`digits`) are members alike. Two more kinds test a
society: one that lies, and one that knows nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mindworks.agents.messages import Message, quoted
from mindworks.agents.society.lots import draw
from mindworks.agents.society.speech import FORM, hear, heard_shortlist, require_choices, say
from mindworks.errors import require

if TYPE_CHECKING:
    from mindworks.agents.models import ChatModel


@dataclass(frozen=True)
class Question:
    """A question with a known set of possible answers.

    `evidence` is what the members look at: an image, a list of content parts, a text. It belongs to the task and never
    holds what another member said; `heard` does. `key` tells questions with the same text apart, for lots. Raises
    `InputError` for choices that could not be told apart in a sentence.
    """

    text: str
    choices: tuple[str, ...]
    evidence: Any = None
    key: str = ""
    heard: tuple[Message, ...] = ()

    def __post_init__(self) -> None:
        require(isinstance(self.choices, tuple), f"choices must be a tuple of strings, got {self.choices!r}")
        require_choices(self.choices)


class Member(Protocol):
    """Whoever can be asked."""

    @property
    def name(self) -> str:
        """What the others call it, one of a kind in its society."""
        ...

    def speak(self, question: Question) -> str | Awaitable[str]:
        """Its answer, in text; a member that takes time gives an awaitable, and others are asked meanwhile."""
        ...


def prompt(question: Question) -> str:
    """The question as one text: the question, the possible answers, what others said as quoted data, and the form."""
    parts = [question.text, f"The possible answers: {' | '.join(question.choices)}."]
    if question.heard:
        parts.append(quoted(question.heard))
    parts.append(f'Answer in a sentence or two that say which answer it is and how sure you are, such as "{FORM}"')
    return "\n\n".join(parts)


@dataclass(frozen=True)
class Expert:
    """A symbolic expert: a function of the question that returns a text, or an awaitable of one."""

    name: str
    respond: Callable[[Question], str | Awaitable[str]]

    def speak(self, question: Question) -> str | Awaitable[str]:
        """What the function says."""
        return self.respond(question)


@dataclass(frozen=True)
class Person:
    """Someone who reads a prompt and types an answer: `ask` is `input`, or a form on a page.

    `ask` may take its time: nothing else goes on meanwhile, and two people at one terminal are asked one by one.
    """

    name: str
    ask: Callable[[str], str]

    def speak(self, question: Question) -> str:
        """What the person typed."""
        return self.ask(prompt(question))


@dataclass(frozen=True)
class Speaker:
    """A language model in a role.

    Evidence that is a text follows the prompt; a sequence of content parts, such as an `image_url`, goes along with
    it. Members that share a model and a role need a `sample` each, or a cache gives them one answer.
    """

    name: str
    model: ChatModel
    role: str = ""
    sample: int = 0

    async def speak(self, question: Question) -> str:
        """The model's reply."""
        content: Any = prompt(question)
        if isinstance(question.evidence, str):
            content = f"{content}\n\n{question.evidence}"
        elif isinstance(question.evidence, Sequence):
            content = [{"type": "text", "text": content}, *question.evidence]
        system = [{"role": "system", "content": self.role}] if self.role else []
        reply = await self.model.chat([*system, {"role": "user", "content": content}], sample=self.sample)
        return reply.text


@dataclass(frozen=True)
class Liar:
    """A member that hears what another one would say, names a different answer, and is certain of it.

    Colluding liars take the choice after the believed one, the first after the last: liars that believe the same tell
    the same lie. The others draw their lies by lot.
    """

    member: Member
    collude: bool = True
    seed: int = 0

    @property
    def name(self) -> str:
        """The name of the member that lies."""
        return self.member.name

    def speak(self, question: Question) -> str | Awaitable[str]:
        """The lie."""
        text = self.member.speak(question)
        return self._lie(question, text) if isinstance(text, str) else self._later(question, text)

    async def _later(self, question: Question, text: Awaitable[str]) -> str:
        return self._lie(question, await text)

    def _lie(self, question: Question, text: str) -> str:
        believed = hear(text, question.choices).answer
        options = heard_shortlist(question.text, question.choices)
        if self.collude:
            place = options.index(believed) if believed in options else -1
            return say(options[(place + 1) % len(options)], 1.0)
        others = [option for option in options if option != believed]
        return say(draw(others or options, self.seed, self.name, question.key, question.text), 1.0)


@dataclass(frozen=True)
class Ignorant:
    """A member that knows nothing: it draws its answer by lot and says that it guesses."""

    name: str
    seed: int = 0

    def speak(self, question: Question) -> str:
        """A guess."""
        options = heard_shortlist(question.text, question.choices)
        return say(draw(options, self.seed, self.name, question.key, question.text), 0.0)
