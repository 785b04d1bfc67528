"""The transcript of one question: who said what in which round, as plain data that can be saved and read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mindworks.agents.messages import Message
from mindworks.errors import InputError, require

KINDS = ("question", "statement", "decision", "failure")
VERSION = 1


class Entry(NamedTuple):
    """One text: the round it belongs to, from 1, its kind (one of `KINDS`), and its sender."""

    round: int
    kind: str
    sender: str
    text: str


class Transcript:
    """Everything that was said about one question, in order, and the answer; None where the society found none.

    A round begins with a question. The evidence is not kept: it is no text.
    """

    def __init__(self, question: str, choices: tuple[str, ...], key: str = "") -> None:
        self.question, self.choices, self.key = question, choices, key
        self.entries: list[Entry] = []
        self.answer: str | None = None
        self.rounds = 0
        self._said: dict[int, list[Message]] = {}

    def note(self, kind: str, sender: str, text: str) -> None:
        """Add an entry; a question opens a round."""
        self.rounds += kind == "question"
        if kind == "statement":
            self._said.setdefault(self.rounds, []).append(Message(sender, text))
        self.entries.append(Entry(self.rounds, kind, sender, text))

    def messages(self, round: int) -> list[Message]:
        """What members said in round number `round`, from 1, in the order of the society."""
        return list(self._said.get(round, ()))

    def asked(self, round: int) -> str:
        """The text of the question of round number `round`, from 1."""
        texts = [entry.text for entry in self.entries if entry[:2] == (round, "question")]
        require(len(texts) == 1, f"round must be between 1 and {self.rounds}, got {round}")
        return texts[0]

    @property
    def failures(self) -> dict[str, str]:
        """The last error of each member that failed, by name."""
        return {entry.sender: entry.text for entry in self.entries if entry.kind == "failure"}

    def as_dict(self) -> dict[str, Any]:
        """The transcript as plain data for JSON."""
        return {
            "version": VERSION,
            "question": self.question,
            "choices": list(self.choices),
            "key": self.key,
            "entries": [entry._asdict() for entry in self.entries],
            "answer": self.answer,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Transcript:
        """The transcript that `as_dict` turned into `data`; raises `InputError` for anything else."""
        try:
            require(data["version"] == VERSION, f"version must be {VERSION}, got {data['version']!r}")
            transcript = cls(data["question"], tuple(data["choices"]), data["key"])
            for fields in data["entries"]:
                entry = Entry(**fields)
                require(entry.kind in KINDS, f"kind must be one of {KINDS}, got {entry.kind!r}")
                transcript.note(*entry[1:])
                require(
                    transcript.rounds == entry.round, f"round must be {transcript.rounds} there, got {entry.round!r}"
                )
            transcript.answer = data["answer"]
        except (KeyError, TypeError) as error:
            raise InputError(f"data must be what as_dict returns, got {type(error).__name__}: {error}") from error
        return transcript
