"""What a reply is worth: exact and normalised answers, programs, captions; multiple choice is in `choices`."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Awaitable, Callable, Sequence
from math import isfinite, sqrt
from typing import Protocol

from mindworks.errors import require

_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*")
_FINAL_TEXT = re.compile(r"final\s+answer\s*(?:is)?\s*[:=]?", re.IGNORECASE)
_CODE = re.compile(r"^(?P<fence>`{3,}|~{3,})[^\n`]*\n(?P<code>.*?)(?:^(?P=fence)|\Z)", re.MULTILINE | re.DOTALL)


def final_answer(text: str) -> str:
    """Return the line that follows the last "FINAL ANSWER:" of `text`; the whole text where there is none."""
    heads = list(_FINAL_TEXT.finditer(text))
    if not heads:
        return text.strip()
    rest = text[heads[-1].end() :].strip().partition("\n")[0]
    return rest.strip(" *_`\"'")


def exact_match(answer: str, expected: str) -> bool:
    """Whether both say the same, apart from case, white space and one full stop at the end."""
    return _plain(answer) == _plain(expected) != ""


def gaia_match(answer: str, expected: str) -> bool:
    """Whether `answer` is GAIA's `expected` answer after normalisation (Mialon et al. 2023, arXiv:2311.12983).

    A number is compared as one, without $, % and commas. A list, told by its commas or semicolons, must have as many
    elements, each compared as a number or as text without white space and case. Other texts also lose punctuation.
    """
    if _NUMBER.fullmatch(expected):
        return _same_number(answer, expected)
    if re.search("[,;]", expected):
        wanted, given = re.split("[,;]", expected), re.split("[,;]", answer)
        return len(wanted) == len(given) and all(map(_same_element, given, wanted))
    kept = _squeezed(expected, punctuation=False)
    # Punctuation alone would leave nothing to compare, and everything without letters would match it.
    return _squeezed(answer, punctuation=False) == kept if kept else _squeezed(answer) == _squeezed(expected)


class Ran(Protocol):
    """What a run of a program tells a scorer."""

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with status 0."""
        ...

    @property
    def stdout(self) -> str:
        """What it wrote."""
        ...


def code_in(reply: str, entry_point: str = "") -> str:
    """Return the last fenced block of `reply`, one that defines `entry_point` if there is; without any, all of it."""
    blocks = [match["code"] for match in _CODE.finditer(reply)]
    defining = [block for block in blocks if _defines(block, entry_point)]
    return [reply, *blocks, *defining][-1]


def code_program(reply: str, prompt: str, test: str, entry_point: str) -> str:
    """Return the program that runs HumanEval's `test` on the function in `reply`: its body, or the function whole.

    Above a function that is whole stays what stands above its head in `prompt`: imports and helpers.
    """
    code, head = code_in(reply, entry_point), f"def {entry_point}("
    require(head in prompt, f"prompt must define {entry_point}, got {prompt[:60]!r}")
    above = prompt[: prompt.index(head)] if _defines(code, entry_point) else prompt
    return f"{above}{code}\n\n{test}\n\ncheck({entry_point})\n"


async def passes(reply: str, prompt: str, test: str, entry_point: str, run: Callable[[str], Awaitable[Ran]]) -> bool:
    """Whether the function in `reply` passes HumanEval's `test`; `run` runs a program, in a sandbox."""
    program = code_program(reply, prompt, test, entry_point)
    # Code that ends early with status 0 has not passed. A hash of the program is a mark that no part of it can hold.
    mark = f"passed {hashlib.sha256(program.encode()).hexdigest()}"
    ran = await run(f"{program}print({mark!r})\n")
    return bool(ran.ok) and ran.stdout.rstrip().rpartition("\n")[2] == mark


def similarity(caption: str, reference: str, embed: Callable[[str], Sequence[float]]) -> float:
    """Return 100 times the cosine between the embeddings of two texts; the mindstorm experiments' score of captions."""
    first, second = [float(x) for x in embed(caption)], [float(x) for x in embed(reference)]
    require(len(first) == len(second) > 0, f"embed must keep its length, got {len(first)} and {len(second)}")
    norms = sqrt(sum(x * x for x in first)) * sqrt(sum(x * x for x in second))
    require(isfinite(norms) and norms > 0, f"embed must give finite vectors that are not zero, got norms {norms}")
    return 100 * sum(x * y for x, y in zip(first, second, strict=True)) / norms


def _defines(code: str, entry_point: str) -> bool:
    return bool(entry_point) and re.search(rf"^def {re.escape(entry_point)}\(", code, re.MULTILINE) is not None


# -- normal forms -----------------------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").strip()


def _squeezed(text: str, punctuation: bool = True) -> str:
    kept = "".join(text.split()).lower()
    return kept if punctuation else kept.translate(str.maketrans("", "", string.punctuation))


def _same_number(answer: str, expected: str) -> bool:
    bare = answer.translate(str.maketrans("", "", "$%,"))
    return _NUMBER.fullmatch(bare) is not None and float(bare.strip()) == float(expected.strip())


def _same_element(given: str, wanted: str) -> bool:
    if _NUMBER.fullmatch(wanted):
        return _same_number(given, wanted)
    return _squeezed(given) == _squeezed(wanted)
