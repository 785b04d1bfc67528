"""Monarchy: members answer a leader, who asks again about what is open, sums up, and decides alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Protocol

from mindworks.agents.messages import Message, quoted
from mindworks.agents.society.assembly import Hearing
from mindworks.agents.society.mindstorm import require_keep
from mindworks.agents.society.speech import FORM, Statement, hear, heard_shortlist, say, shortlist
from mindworks.agents.society.transcript import Transcript
from mindworks.agents.society.votes import leading, tally, winner
from mindworks.errors import InputError, require

if TYPE_CHECKING:
    from mindworks.agents.models import ChatModel


class Leader(Protocol):
    """Who reads what was said, asks the next question, and decides. All of it is text."""

    @property
    def name(self) -> str:
        """What the transcript calls it."""
        ...

    def inquire(self, transcript: Transcript) -> str | Awaitable[str]:
        """What to ask everybody next; an empty text ends the rounds."""
        ...

    def decide(self, transcript: Transcript) -> str | Awaitable[str]:
        """A text from which the answer is heard."""
        ...


@dataclass(frozen=True)
class Monarchy:
    """The members never hear each other; the leader hears all, asks up to `rounds` times, and decides.

    The first round asks the question itself. A leader that raises is a failure of the question: its error is not
    hidden.
    """

    leader: Leader
    rounds: int = 3

    def __post_init__(self) -> None:
        require(self.rounds >= 1, f"rounds must be at least 1, got {self.rounds}")

    async def hold(self, hearing: Hearing) -> str | None:
        """What is heard from the leader's decision."""
        question, leader = hearing.question, self.leader
        await hearing.interview()
        for _ in range(self.rounds - 1):
            asked = await _text(leader.inquire(hearing.transcript))
            if not asked:
                break
            told = quoted([Message(leader.name, asked)])
            await hearing.interview(f"{question.text}\n\nThe leader asks about it.\n\n{told}", asker=leader.name)
        decision = await _text(leader.decide(hearing.transcript))
        hearing.transcript.note("decision", leader.name, decision)
        return hear(decision, question.choices).answer

    def feedback(self, transcript: Transcript, truth: str) -> None:
        """Pass on the right answer to a leader that learns."""
        learn = getattr(self.leader, "feedback", None)
        if learn is None:
            raise InputError(f"leader must learn from feedback, got {self.leader.name!r}")
        learn(transcript, truth)


async def _text(said: str | Awaitable[str]) -> str:
    return said if isinstance(said, str) else await said


class Judge:
    """A symbolic leader: it weighs each member by how often what it said, as sure as it was, proved right.

    With p the smoothed share of right answers of a member in a round of k options, its vote weighs
    log(p (k - 1) / (1 - p)), the log odds of a member whose errors are spread evenly: a guess weighs nothing, and a
    member that is mostly wrong counts against what it says. Before any feedback all members weigh the same.

    After each round the `keep` best answers are asked again; the last round decides, equal scores by lot. The Judge
    learns and reads from the transcript alone.
    """

    def __init__(self, name: str = "judge", keep: tuple[int, ...] = (3, 2), seed: int = 0) -> None:
        require_keep(keep)
        self.name, self.keep, self.seed = name, keep, seed
        self.said: Counter[tuple[int, str, float]] = Counter()
        self.right: Counter[tuple[int, str, float]] = Counter()

    def inquire(self, transcript: Transcript) -> str:
        """The question, narrowed to the best answers so far."""
        scores = self.scores(transcript, transcript.rounds)
        if transcript.rounds > len(self.keep) or not scores:
            return ""
        options = leading(scores, self.keep[transcript.rounds - 1], self.seed, transcript.key)
        return shortlist("Look again.", options)

    def decide(self, transcript: Transcript) -> str:
        """The best answer of the last round, in a sentence."""
        best = winner(self.scores(transcript, transcript.rounds), self.seed, transcript.key)
        return "I heard no answer." if best is None else say(best, 1.0)

    def scores(self, transcript: Transcript, round: int) -> dict[str, float]:
        """The weight of evidence for each answer that was open in round number `round`; empty where none was named."""
        options = heard_shortlist(transcript.asked(round), transcript.choices)

        def weight(sender: str, statement: Statement) -> float:
            return self.log_odds(round, sender, statement.confidence, len(options))

        return tally(transcript.messages(round), transcript.choices, options, weight)

    def log_odds(self, round: int, sender: str, confidence: float, options: int) -> float:
        """The weight of a statement of `sender`; 1 before any feedback, and where one option was left."""
        if not self.said or options < 2:
            return 1.0
        key = (round, sender, confidence)
        share = (self.right[key] + 1) / (self.said[key] + options)  # one right answer among `options` made up ones
        return log(share * (options - 1) / (1 - share))

    def feedback(self, transcript: Transcript, truth: str) -> None:
        """Count who was right; rounds in which the truth was no longer open tell nothing."""
        for round in range(1, transcript.rounds + 1):
            if truth not in heard_shortlist(transcript.asked(round), transcript.choices):
                return
            for message in transcript.messages(round):
                answer, confidence = hear(message.text, transcript.choices)
                if answer is not None:
                    self.said[round, message.sender, confidence] += 1
                    self.right[round, message.sender, confidence] += answer == truth


@dataclass(frozen=True)
class Chief:
    """A language model that leads: it sums up what it heard and asks one more question, and at last decides.

    What the members said reaches it as quoted data.
    """

    name: str
    model: ChatModel
    role: str = "You lead a group. You cannot see what its members see; you depend on what they tell you."

    async def inquire(self, transcript: Transcript) -> str:
        """A summary with a further question."""
        return await self._ask(
            transcript,
            "Sum up in a sentence or two what is agreed and what is open, then ask them one further question.",
        )

    async def decide(self, transcript: Transcript) -> str:
        """The decision, as the model words it."""
        return await self._ask(transcript, f'Decide. Answer in a sentence of the form "{FORM}"')

    async def _ask(self, transcript: Transcript, task: str) -> str:
        said = [Message(entry.sender, entry.text) for entry in transcript.entries if entry.kind == "statement"]
        parts = [transcript.question, f"The possible answers: {' | '.join(transcript.choices)}.", quoted(said), task]
        chat = [{"role": "system", "content": self.role}, {"role": "user", "content": "\n\n".join(parts)}]
        return (await self.model.chat(chat)).text
