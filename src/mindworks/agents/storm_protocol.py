"""The original mindstorm protocol: a leader that sees no image questions members that do.

Zhuge et al., "Mindstorms in Natural Language-Based Societies of Mind", 2023, arXiv:2305.17066, as in the code of its
experiments. Four stages: the mission (members describe the image), mindstorm rounds (the leader asks on), opinion
gathering (it sums up) and execution (it solves the task by the summary alone).

The monarchical form is that of the published runs. Of the democratic one the code only tells that the leader sees one
agreed answer per question; how members agree is chosen here: they vote on the answers, and at the end on the options.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mindworks.agents import storm_prompts as prompts
from mindworks.agents._together import together
from mindworks.agents.choices import LETTERS, read_choice
from mindworks.agents.messages import Message
from mindworks.errors import require

if TYPE_CHECKING:
    from mindworks.agents.models import ChatModel, Reply

VQA_ROUNDS = 5
CAPTION_ROUNDS = 10
LEADER = "leader"
Form = Literal["monarchical", "democratic"]
Stage = Literal["mission", "mindstorm", "opinion gathering", "execution"]
Reader = Callable[[str, Sequence[str]], int | None]


@dataclass(frozen=True)
class Calls:
    """Calls of language models."""

    leader: int
    """of the model that leads"""
    members: int
    """of all members together"""

    @property
    def total(self) -> int:
        """All calls."""
        return self.leader + self.members


@dataclass(frozen=True)
class Turn:
    """What was said once, in the order of the record."""

    stage: Stage
    """one of the four"""
    round: int
    """from 0; opinion gathering and execution carry the number of rounds"""
    speaker: str
    """the leader, `member 1` and so on, or `agreed` for what was voted for"""
    kind: Literal["question", "answer", "vote", "agreed", "summary", "result"]
    """what it was"""
    text: str
    """the words"""


@dataclass(frozen=True)
class Outcome:
    """What a mindstorm came to."""

    text: str
    """the last word: a letter in brackets or what the leader wrote; empty where no vote could be read"""
    choice: int | None
    """the option it chooses; None for captions, and where none could be read"""
    turns: tuple[Turn, ...]
    """the transcript"""
    calls: Calls
    """calls that were made, failed ones too"""
    failures: tuple[str, ...]
    """what members failed at; the others went on without them"""

    @property
    def last_question(self) -> str:
        """The question of the last round, with which the original prompted its baseline for captions."""
        return [turn.text for turn in self.turns if turn.kind == "question"][-1]


def calls(rounds: int, members: int, form: Form = "monarchical", *, options: bool = True) -> Calls:
    """Return how many calls a mindstorm takes if nothing fails.

    The leader asks in all rounds but the first, sums up and executes: `rounds + 1`. Members answer in every round. In
    the democratic form two or more members also vote on each round's answers, and each votes on the options, if any.
    """
    _require_rounds(rounds)
    _require_form(form)
    require(members >= 1, f"members must be at least 1, got {members}")
    votes = rounds * members if form == "democratic" and members > 1 else 0
    ballots = members if form == "democratic" and options else 0
    return Calls(rounds + 1, rounds * members + votes + ballots)


@dataclass(frozen=True)
class MindstormProtocol:
    """A leader and its members, any chat models; members must take image parts where there are images.

    Raises `InputError` for no members and an unknown form.
    """

    leader: ChatModel
    """asks, sums up and executes; it never sees the image"""
    members: Sequence[ChatModel]
    """answer with the image before them, and never hear each other"""
    form: Form = "monarchical"
    """whether the leader sees every answer, or the one that members agree on"""
    read: Reader = read_choice
    """finds the option in a reply; `read_choice_original` for parity with the published code"""
    leader_settings: Mapping[str, Any] = field(default_factory=dict)
    """for the leader's model; the original had `max_tokens=100`"""
    member_settings: Mapping[str, Any] = field(default_factory=dict)
    """for the members' models"""

    def __post_init__(self) -> None:
        require(len(self.members) > 0, "members must hold at least one, got none")
        _require_form(self.form)

    async def answer(
        self, question: str, options: Sequence[str], image: str | None, *, rounds: int = VQA_ROUNDS, sample: int = 0
    ) -> Outcome:
        """Answer a multiple-choice question about the image at the URL `image`; None for a question without one.

        Where a member raises, the failure is recorded and the round goes on; where all do, or the leader does, the
        error is raised. Another `sample` is another draw from every model.
        """
        require(2 <= len(options) <= len(LETTERS), f"options must be 2 to {len(LETTERS)}, got {len(options)}")
        return await self._run(question, tuple(options), image, rounds, sample)

    async def describe(
        self, image: str, *, goal: str = prompts.GOAL, rounds: int = CAPTION_ROUNDS, sample: int = 0
    ) -> Outcome:
        """Describe the image at the URL `image`; the leader writes the description. Errors as for `answer`."""
        return await self._run(goal, (), image, rounds, sample)

    async def _run(self, goal: str, options: tuple[str, ...], image: str | None, rounds: int, sample: int) -> Outcome:
        _require_rounds(rounds)
        require(bool(goal.strip()), f"the question or goal must have words, got {goal!r}")
        storm = _Storm(self, goal, options, image, rounds, sample)
        await storm.hold()
        summary = await storm.gather_opinions()
        text, choice = await storm.execute(summary)
        made = Calls(storm.leader_calls, storm.member_calls)
        return Outcome(text, choice, tuple(storm.turns), made, tuple(storm.failures))


async def ask_alone(
    model: ChatModel, question: str, options: Sequence[str], image: str | None, *, sample: int = 0, **settings: Any
) -> str:
    """Return the reply of one member to the task itself: the baseline, one call. No options: a goal to describe by.

    For captions the published code prompted its baseline with the last mindstorm question instead
    (`Outcome.last_question`), which asks for less than the goal.
    """
    text = prompts.alone_prompt(prompts.task_text(question, options), options)
    return (await model.chat([prompts.user_message(text, image)], sample=sample, **settings)).text


class _Storm:
    """One mindstorm on its way."""

    def __init__(
        self,
        protocol: MindstormProtocol,
        goal: str,
        options: tuple[str, ...],
        image: str | None,
        rounds: int,
        sample: int,
    ) -> None:
        self.protocol, self.goal, self.options = protocol, goal, options
        self.image, self.rounds, self.sample = image, rounds, sample
        self.task = prompts.task_text(goal, options)
        self.turns: list[Turn] = []
        self.failures: list[str] = []
        self.record: list[Message] = []
        self.leader_calls = self.member_calls = 0

    async def hold(self) -> None:
        """The mission and the mindstorm rounds."""
        question = prompts.mission(self.goal, self.image)
        for number in range(self.rounds):
            stage: Stage = "mindstorm" if number else "mission"
            self._turn(stage, number, LEADER, "question", question)
            answers = await self._poll(question, stage, number)
            if self.protocol.form == "democratic":
                answers = [await self._agree(question, answers, stage, number)]
            self.record += [Message(f"question {number + 1}", question), *answers]
            if number < self.rounds - 1:
                reply = await self._lead(prompts.question_prompt(self.task, self.record))
                question = self._first_question(reply, number + 1)

    async def gather_opinions(self) -> str:
        """The summary, by the leader."""
        summary = await self._lead(prompts.summary_prompt(self.task, self.record))
        self._turn("opinion gathering", self.rounds, LEADER, "summary", summary)
        return summary

    async def execute(self, summary: str) -> tuple[str, int | None]:
        """The result: the leader's, or the vote of all members."""
        prompt = prompts.execution_prompt(self.task, self.options, summary)
        text = await self._lead(prompt)
        self._turn("execution", self.rounds, LEADER, "result", text)
        lead = self.protocol.read(text, self.options) if self.options else None
        if self.protocol.form == "monarchical" or not self.options:
            return text, lead
        choice = await self._vote(prompt, lead)
        text = "" if choice is None else f"({LETTERS[choice]})"
        self._turn("execution", self.rounds, "agreed", "result", text)
        return text, choice

    async def _poll(self, question: str, stage: Stage, number: int) -> list[Message]:
        """Every member's answer to a question; raises the first error where all fail."""
        replies = await self._ask_all(question)
        if all(isinstance(reply, Exception) for reply in replies):
            raise next(reply for reply in replies if isinstance(reply, Exception))
        return self._noted(replies, stage, number, "answer")

    async def _agree(self, question: str, answers: list[Message], stage: Stage, number: int) -> Message:
        """The answer with most votes; equal answers share theirs, a tie goes to the answer given first."""
        votes: Counter[str] = Counter()
        if len(answers) > 1:
            for vote in self._noted(await self._ask_all(prompts.vote_prompt(question, answers)), stage, number, "vote"):
                named = {int(digits) for digits in re.findall(r"\d{1,9}", vote.text)} & set(range(1, len(answers) + 1))
                if len(named) == 1:
                    votes[answers[named.pop() - 1].text] += 1
        best = max(answers, key=lambda answer: votes[answer.text])
        self._turn(stage, number, "agreed", "agreed", best.text)
        return Message("agreed answer", best.text)

    async def _vote(self, prompt: str, lead: int | None) -> int | None:
        """The option with most votes; one that cannot be read goes to the leader's, and so does a tie that holds it."""
        replies = self._noted(await self._ask_all(prompt), "execution", self.rounds, "vote")
        read = [self.protocol.read(reply.text, self.options) for reply in replies]
        votes = Counter(lead if choice is None else choice for choice in read)
        del votes[None]
        if not votes:
            return lead
        leading = [choice for choice, count in votes.items() if count == max(votes.values())]
        return lead if lead in leading else min(choice for choice in leading if choice is not None)

    async def _ask_all(self, text: str) -> list[Reply | Exception]:
        self.member_calls += len(self.protocol.members)
        return await together(self._ask(member, text) for member in self.protocol.members)

    async def _ask(self, member: ChatModel, text: str) -> Reply | Exception:
        chat = [prompts.user_message(text, self.image)]
        try:
            return await member.chat(chat, sample=self.sample, **self.protocol.member_settings)
        except Exception as error:
            return error

    async def _lead(self, prompt: str) -> str:
        self.leader_calls += 1
        chat = [prompts.user_message(prompt, None)]
        return (await self.protocol.leader.chat(chat, sample=self.sample, **self.protocol.leader_settings)).text

    def _noted(
        self, replies: Sequence[Reply | Exception], stage: Stage, number: int, kind: Literal["answer", "vote"]
    ) -> list[Message]:
        messages = []
        for index, reply in enumerate(replies, 1):
            name = f"member {index}"
            if isinstance(reply, Exception):
                reason = f"{type(reply).__name__}: {reply}"
                self.failures.append(f"{name}, round {number + 1} ({stage}): {reason}")
            else:
                self._turn(stage, number, name, kind, reply.text)
                messages.append(Message(name, reply.text))
        return messages

    def _first_question(self, reply: str, number: int) -> str:
        """The reply up to its first question mark; the task's own question where there are no words before it."""
        words = reply.partition("?")[0].strip()
        if words:
            return f"{words}?"
        self.failures.append(
            f"{LEADER}, round {number + 1} (mindstorm): asked nothing, so the task's own words are asked"
        )
        return self.goal

    def _turn(
        self,
        stage: Stage,
        number: int,
        speaker: str,
        kind: Literal["question", "answer", "vote", "agreed", "summary", "result"],
        text: str,
    ) -> None:
        self.turns.append(Turn(stage, number, speaker, kind, text))


def _require_rounds(rounds: int) -> None:
    require(rounds >= 1, f"rounds must be at least 1, got {rounds}")


def _require_form(form: str) -> None:
    require(form in ("monarchical", "democratic"), f"form must be monarchical or democratic, got {form!r}")
