"""A symbolic crossword solver with calibrated noise: it stands in for a language model where there is none."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from itertools import chain
from typing import Any

from mindworks.agents.crossword_prompts import ADVISE, CHECK, PROPOSE, VALUE
from mindworks.agents.crosswords import BLANK, CONFIDENCES, SLOTS, Crossword, fits, words
from mindworks.agents.models import Chat, Reply, Usage
from mindworks.errors import require

CALIBRATION = {"certain": 0.95, "high": 0.7, "medium": 0.4, "low": 0.15}
"""How often a proposed word is right, by its confidence, on boards whose letters are right."""
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CLUE = re.compile(r"^(?:[hv][1-5]\. )?(.+): ([A-Z_]{5})$", re.MULTILINE)
_DOUBTED = re.compile(r"^Do not trust ([hv1-5, ]+)\.$", re.MULTILINE)
_VERDICT_RIGHT = 0.85  # how often a verdict on a word is right


class NoisySolver:
    """A chat model that knows the words of `puzzles` and errs at known rates.

    It reads nothing but the prompts of `crossword_prompts` and answers in text. A proposal is right as often as
    `CALIBRATION` says of its confidence; letters that are there raise the confidence, by up to `help` for four of them.
    Words that it advised not to trust are drawn once more. The noise is a function of the seed, the sample index, the
    clue and the letters, so the same prompt gets the same answer, as from a language model at temperature 0. Raises
    `InputError` for `skill` or `help` outside [0, 1].
    """

    def __init__(self, puzzles: Iterable[Crossword], *, seed: int, skill: float = 0.5, help: float = 0.5) -> None:
        require(0 <= skill <= 1, f"skill must be from 0 to 1, got {skill}")
        require(0 <= help <= 1, f"help must be from 0 to 1, got {help}")
        self.name, self.seed, self.skill, self.help, self.calls = "noisy solver", seed, skill, help, 0
        self._known: dict[str, list[str]] = {}
        for puzzle in puzzles:
            for clue, word in zip(puzzle.clues, words(puzzle.solution), strict=True):
                self._known.setdefault(" ".join(clue.split()), []).append(word)
        require(bool(self._known), "puzzles must hold at least one, got none")
        self._lexicon = sorted({word for known in self._known.values() for word in known})

    async def chat(self, messages: Chat, *, sample: int = 0, **settings: Any) -> Reply:
        """Answer the last message; another `sample` is another draw, settings change nothing."""
        self.calls += 1
        prompt = str(messages[-1]["content"])
        answers = {PROPOSE: self._propose, VALUE: self._value, CHECK: self._check, ADVISE: self._advise}
        answer = answers.get(prompt.partition("\n")[0])
        return Reply(answer(prompt, sample) if answer else "I only solve crosswords.", Usage(0, 0))

    def _propose(self, prompt: str, sample: int) -> str:
        doubted = _DOUBTED.search(prompt)
        lines = []
        for slot, (clue, pattern) in zip(SLOTS, _CLUE.findall(prompt), strict=False):
            if BLANK in pattern:
                second_look = doubted is not None and slot in doubted[1]
                word, confidence = self._guess(clue, pattern, sample, second_look)
                lines.append(f"{slot}. {word.lower()} ({confidence})")
        return "\n".join(lines)

    def _guess(self, clue: str, pattern: str, sample: int, second_look: bool) -> tuple[str, str]:
        truths = self._truths(clue, pattern)
        if not truths:
            return self._wrong(clue, pattern, "", (sample, second_look)), "low"
        letters = sum(letter != BLANK for letter in pattern) / (len(pattern) - 1)
        # How well a clue is known is a property of the clue: it does not change as the board fills.
        sureness = (self.skill + self._unit("clue", clue, sample)) / 2 + self.help * letters
        rank = min(int(sureness * len(CONFIDENCES)), len(CONFIDENCES) - 1)
        confidence = list(reversed(CONFIDENCES))[rank]
        if self._unit("right", clue, pattern, (sample, second_look)) < CALIBRATION[confidence]:
            return truths[0], confidence
        return self._wrong(clue, pattern, truths[0], (sample, second_look)), confidence

    def _wrong(self, clue: str, pattern: str, truth: str, look: tuple[int, bool]) -> str:
        """A word that fits the letters and is not the truth: of another clue if there is one, else made up."""
        draw = self._unit("wrong", clue, pattern, look)
        start = int(draw * len(self._lexicon))
        for word in chain(self._lexicon[start:], self._lexicon[:start]):
            if word != truth and fits(pattern, word):
                return word
        base = truth or pattern.replace(BLANK, "A")
        blanks = [at for at, letter in enumerate(pattern) if letter == BLANK]
        at = blanks[int(draw * len(blanks))]
        others = _LETTERS.replace(base[at], "")
        return base[:at] + others[int(self._unit("letter", clue, pattern, look) * len(others))] + base[at + 1 :]

    def _value(self, prompt: str, sample: int) -> str:
        return self._verdict(prompt, sample, "maybe", "impossible")

    def _check(self, prompt: str, sample: int) -> str:
        return self._verdict(prompt, sample, "yes", "no")

    def _verdict(self, prompt: str, sample: int, good: str, bad: str) -> str:
        found = _CLUE.search(prompt)
        if not found:
            return bad
        right = bool(self._truths(found[1], found[2]))
        honest = self._unit("verdict", found[1], found[2], sample) < _VERDICT_RIGHT
        return good if right == honest else bad

    def _advise(self, prompt: str, sample: int) -> str:
        wrong = re.findall(r"^([hv][1-5])\. .* is (?:wrong|impossible)$", prompt, re.MULTILINE)
        return f"Do not trust {', '.join(wrong)}." if wrong else "Keep what was right."

    def _truths(self, clue: str, pattern: str) -> list[str]:
        return [word for word in self._known.get(" ".join(clue.split()), []) if fits(pattern, word)]

    def _unit(self, *parts: object) -> float:
        """A number in [0, 1) that depends on the seed and the parts alone."""
        digest = blake2b(repr((self.seed, *parts)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64
