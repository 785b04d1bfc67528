"""Questions in text: MMLU, HumanEval, mini crosswords, GAIA, and plain questions of your own, one per line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindworks.data.agent_tasks.records import (
    csv_rows,
    each,
    json_array,
    json_lines,
    plain_name,
    shown,
    text_of,
    texts_of,
)
from mindworks.errors import require

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SPLITS = ("_dev", "_val", "_test", "_train")
_WORDS, _CELLS = 10, 25
_UNKNOWN = "?"  # what GAIA's test part holds in place of an answer


@dataclass(frozen=True)
class Task:
    """One question; with options it is multiple choice."""

    question: str
    """what is asked"""
    answer: str
    """the right letter where there are options, else the answer in words"""
    options: tuple[str, ...] = ()
    """the texts behind the letters A, B, ..."""
    subject: str = ""
    """what it is about; for MMLU the name of its file"""

    @property
    def choice(self) -> int | None:
        """The index of the right option; none without options."""
        return LETTERS.index(self.answer) if self.options else None


@dataclass(frozen=True)
class CodeTask:
    """One function to write, as in HumanEval."""

    task_id: str
    """the task's name"""
    prompt: str
    """the head of the function with its docstring"""
    entry_point: str
    """the name of the function"""
    canonical_solution: str
    """the body of a right one"""
    test: str
    """code that defines `check(candidate)`, which raises for a wrong function"""


@dataclass(frozen=True)
class MiniCrossword:
    """One crossword of 5 x 5 letters without black cells."""

    clues: tuple[str, ...]
    """ten: the rows from the top, then the columns from the left"""
    solution: str
    """25 letters in capitals, row by row"""


@dataclass(frozen=True)
class GaiaTask:
    """One question to a general assistant."""

    task_id: str
    """the task's name"""
    question: str
    """what is asked"""
    level: int
    """1 to 3, the hardest last"""
    answer: str | None
    """the final answer; none in the part whose answers are kept back"""
    file: Path | None
    """the file that belongs to the question; whether it exists is not looked up"""


def read_mmlu(path: str | Path) -> list[Task]:
    """Read MMLU from a CSV file, or from every one in a folder, in the order of their names.

    A file has no header; its columns are the question, four options and the letter of the right one. Raises
    `InputError` that names the file and the line.
    """
    path = Path(path)
    if not path.is_dir():
        return each(path, csv_rows(path), lambda place, row: _mmlu(place, row, _subject(path)))
    files = sorted(path.glob("*.csv"))
    require(bool(files), f"{path} has no .csv file")
    return [task for file in files for task in read_mmlu(file)]


def _subject(path: Path) -> str:
    for split in _SPLITS:
        if path.stem.endswith(split):
            return path.stem.removesuffix(split)
    return path.stem


def _mmlu(place: str, row: list[str], subject: str) -> Task:
    require(len(row) == 6, f"{place} must have 6 cells (question, A, B, C, D, answer), got {len(row)}")
    question, *options, answer = row
    require(bool(question.strip()), f"{place}: the question is empty")
    letter = answer.strip()
    require(
        len(letter) == 1 and letter in LETTERS[:4], f"{place}: the answer must be A, B, C or D, got {shown(answer)}"
    )
    return Task(question, letter, tuple(options), subject)


def read_tasks(path: str | Path) -> list[Task]:
    """Read JSON lines with the fields `question`, `answer` and, for multiple choice, `options`.

    With options the answer is a letter or the text of an option. Numbers may stand for their text. Raises `InputError`
    that names the file and the line, also where a letter and a text disagree.
    """
    return each(path, json_lines(path), _task)


def _task(place: str, record: dict[str, Any]) -> Task:
    record = {key: _worded(value) for key, value in record.items()}
    question, answer = text_of(place, record, "question"), text_of(place, record, "answer").strip()
    subject = text_of(place, record, "subject", empty=True) if "subject" in record else ""
    if record.get("options") in (None, []):
        return Task(question, answer, (), subject)
    options = texts_of(place, record, "options", 2)
    require(len(options) <= len(LETTERS), f"{place}: 'options' must be at most {len(LETTERS)}, got {len(options)}")
    letters = LETTERS[: len(options)]
    readings = {index for index, option in enumerate(options) if option.strip() == answer}
    readings |= {letters.index(answer)} if len(answer) == 1 and answer in letters else set()
    require(bool(readings), f"{place}: 'answer' must be one of 'options' or its letter, got {shown(answer)}")
    require(len(readings) == 1, f"{place}: 'answer' {shown(answer)} fits several options")
    return Task(question, letters[readings.pop()], options, subject)


def _worded(value: Any) -> Any:
    """Numbers as text, also inside lists; a truth value is no number."""
    if isinstance(value, list):
        return [_worded(item) for item in value]
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def read_humaneval(path: str | Path) -> list[CodeTask]:
    """Read HumanEval from its file of JSON lines, plain or gzip. Raises `InputError` that names the file and the line.

    Nothing is run. A prompt that does not define its entry point is refused.
    """
    return each(path, json_lines(path), _code_task)


def _code_task(place: str, record: dict[str, Any]) -> CodeTask:
    fields = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
    task = CodeTask(*(text_of(place, record, field, empty=field == "canonical_solution") for field in fields))
    require(task.entry_point.isidentifier(), f"{place}: 'entry_point' must be a name, got {shown(task.entry_point)}")
    require(f"def {task.entry_point}(" in task.prompt, f"{place}: 'prompt' does not define {task.entry_point}")
    require("def check(" in task.test, f"{place}: 'test' does not define check")
    return task


def read_mini_crosswords(path: str | Path) -> list[MiniCrossword]:
    """Read crosswords of 5 x 5 letters from a JSON array of pairs: ten clues, 25 letters.

    Raises `InputError` that names the file and the line.
    """
    return each(path, json_array(path), _crossword)


def _crossword(place: str, record: Any) -> MiniCrossword:
    pair = isinstance(record, list) and len(record) == 2
    require(pair, f"{place} must be a pair of clues and letters, got {shown(record)}")
    parts = {"clues": record[0], "letters": record[1]}
    clues, letters = (texts_of(place, parts, name, 1) for name in parts)
    require(len(clues) == _WORDS, f"{place} must have {_WORDS} clues, got {len(clues)}")
    require(len(letters) == _CELLS, f"{place} must have {_CELLS} letters, got {len(letters)}")
    wrong = [letter for letter in letters if len(letter) != 1 or letter.upper() not in LETTERS]
    require(not wrong, f"{place}: a cell must be a letter from A to Z, got {shown(wrong[:1])}")
    return MiniCrossword(clues, "".join(letters).upper())


def read_gaia(path: str | Path) -> list[GaiaTask]:
    """Read GAIA from its `metadata.jsonl`; files that belong to questions are looked for beside it.

    An answer that is missing, empty or `?` is none. Raises `InputError` that names the file and the line.
    """
    folder = Path(path).parent
    return each(path, json_lines(path), lambda place, record: _gaia(place, record, folder))


def _gaia(place: str, record: dict[str, Any], folder: Path) -> GaiaTask:
    record = {key: _worded(value) for key, value in record.items()}
    level, name = text_of(place, record, "Level"), record.get("file_name") or ""
    require(level in ("1", "2", "3"), f"{place}: 'Level' must be 1, 2 or 3, got {shown(level)}")
    require(isinstance(name, str), f"{place}: 'file_name' must be a string, got {shown(name)}")
    answer = text_of(place, record, "Final answer", empty=True) if record.get("Final answer") is not None else ""
    return GaiaTask(
        text_of(place, record, "task_id"),
        text_of(place, record, "Question"),
        int(level),
        None if answer.strip() in ("", _UNKNOWN) else answer,
        folder / plain_name(place, "file_name", name) if name else None,
    )
