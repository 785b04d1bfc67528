"""A society: members that are asked together, and a protocol that makes one answer of what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Protocol

from mindworks.agents.graph import run_sync
from mindworks.agents.messages import Message
from mindworks.agents.society.members import Member, Question
from mindworks.agents.society.transcript import Transcript
from mindworks.errors import require

CHAIR = "chair"  # who asks when no leader does


class Hearing:
    """One question before a society: what a protocol has to work with."""

    def __init__(self, members: Sequence[Member], question: Question) -> None:
        self.members, self.question = members, question
        self.transcript = Transcript(question.text, question.choices, question.key)

    async def interview(
        self, text: str | None = None, heard: Sequence[Message] = (), asker: str = CHAIR
    ) -> list[Message]:
        """Put `text`, by default the question itself, to every member at once; what they said, in their order.

        `heard` is what they are told others said. A member that raises, or says no text, is a failure in the
        transcript and is missing from the answer. A cancellation is not held up.
        """
        question = replace(self.question, text=self.question.text if text is None else text, heard=tuple(heard))
        self.transcript.note("question", asker, question.text)
        said: list[object] = [self._ask(member, question) for member in self.members]
        slow = {place: self._wait(what) for place, what in enumerate(said) if isinstance(what, Awaitable)}
        for place, text_ in zip(slow, await asyncio.gather(*slow.values()), strict=True):
            said[place] = text_
        for member, what in zip(self.members, said, strict=True):
            if isinstance(what, str):
                self.transcript.note("statement", member.name, what)
            elif isinstance(what, Exception):
                self.transcript.note("failure", member.name, f"{type(what).__name__}: {what}")
            else:
                self.transcript.note("failure", member.name, f"said no text: {what!r}")
        return self.transcript.messages(self.transcript.rounds)

    @staticmethod
    def _ask(member: Member, question: Question) -> object:
        try:
            return member.speak(question)
        except Exception as error:
            return error

    @staticmethod
    async def _wait(said: Awaitable[str]) -> object:
        try:
            return await said
        except Exception as error:
            return error


class Deliberation(Protocol):
    """A protocol: how a society comes from its members' statements to one answer."""

    async def hold(self, hearing: Hearing) -> str | None:
        """One of the choices of `hearing.question`, None where nothing was heard."""
        ...


class Learning(Deliberation, Protocol):
    """A protocol that learns whom to trust from questions whose answer is known."""

    def feedback(self, transcript: Transcript, truth: str) -> None:
        """Take note that `truth` was the right answer to the question of `transcript`."""
        ...


class Society:
    """Members under names of their own. Raises `InputError` for none, or for a name that two members share."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        names = [member.name for member in self.members]
        require(len(names) >= 1, "members must be at least one, got []")
        doubled = sorted({name for name in names if names.count(name) > 1})
        require(not doubled, f"members must have different names, got {doubled} more than once")

    def __len__(self) -> int:
        return len(self.members)

    async def deliberate(self, question: Question, protocol: Deliberation) -> Transcript:
        """Answer one question; the transcript holds the answer and all that led to it."""
        hearing = Hearing(self.members, question)
        hearing.transcript.answer = await protocol.hold(hearing)
        return hearing.transcript

    async def deliberate_all(
        self, questions: Sequence[Question], protocol: Deliberation, concurrency: int = 16
    ) -> list[Transcript]:
        """Answer many questions, at most `concurrency` of them at a time; transcripts in the order of the questions."""
        require(concurrency >= 1, f"concurrency must be at least 1, got {concurrency}")
        transcripts: dict[int, Transcript] = {}
        waiting = iter(enumerate(questions))

        async def work() -> None:
            for place, question in waiting:
                transcripts[place] = await self.deliberate(question, protocol)

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(concurrency, len(questions))):
                workers.create_task(work())
        return [transcripts[place] for place in range(len(questions))]

    def ask(self, question: Question, protocol: Deliberation) -> Transcript:
        """`deliberate`, for code that runs no event loop, and for notebooks that do."""
        return run_sync(self.deliberate(question, protocol))

    def ask_all(self, questions: Sequence[Question], protocol: Deliberation, concurrency: int = 16) -> list[Transcript]:
        """`deliberate_all`, for code that runs no event loop, and for notebooks that do."""
        return run_sync(self.deliberate_all(questions, protocol, concurrency))

    def learn(
        self, questions: Sequence[Question], truths: Sequence[str], protocol: Learning, concurrency: int = 16
    ) -> list[Transcript]:
        """Answer questions whose answer is known, then give the protocol feedback on each, in their order."""
        require(len(truths) == len(questions), f"truths must be one per question, {len(questions)}, got {len(truths)}")
        for question, truth in zip(questions, truths, strict=True):
            require(truth in question.choices, f"truths must be among the choices of their question, got {truth!r}")
        transcripts = self.ask_all(questions, protocol, concurrency)
        for transcript, truth in zip(transcripts, truths, strict=True):
            protocol.feedback(transcript, truth)
        return transcripts
