"""Small files in the form the benchmarks are distributed in, and every way in which one can be wrong."""

from __future__ import annotations

import gzip
import json
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mindworks.data.agent_tasks import (
    CaptionTask,
    CodeTask,
    GaiaTask,
    MiniCrossword,
    Task,
    VisualQuestion,
    image_url,
    read_aokvqa,
    read_gaia,
    read_humaneval,
    read_mini_crosswords,
    read_mmlu,
    read_tara,
    read_tasks,
)
from mindworks.errors import InputError

MMLU = """"What is 2 + 2, in ""words""?",three,four,"five, or so",six,B
"Consider:
(1) rain
(2) snow",neither,1 only,2 only,both,D
"""
CODE = {
    "task_id": "HumanEval/0",
    "prompt": "def one() -> int:\n    ...\n",
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}
GAIA = {
    "task_id": "c61d",
    "Question": "How many?",
    "Level": 1,
    "Final answer": "17",
    "file_name": "table.xlsx",
    "Annotator Metadata": {"Steps": "1. Count"},
}
GRID = ["ABCDE", "FGHIJ", "KLMNO", "PQRST", "UVWXY"]
CROSSWORD = [[f"clue {number}" for number in range(10)], list("".join(GRID))]
VISUAL = {
    "split": "val",
    "image_id": 461751,
    "question_id": "22jbM6gDxdaMaunuzgrsBB",
    "question": "What is in the motorcyclist's mouth?",
    "choices": ["toothpick", "food", "popsicle stick", "cigarette"],
    "correct_choice_idx": 3,
    "direct_answers": ["cigarette", "cigar"],
    "difficult_direct_answer": False,
    "rationales": ["He is smoking."],
}
TARA = "An abstract_!_A paragraph_!_Paris, 2014, a march_!_a/b.jpg_!_Paris"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Write a text, bytes, or JSON lines of a list, and return the path."""

    def file(name: str, content: Any) -> Path:
        if isinstance(content, list):
            content = "\n".join(json.dumps(record) for record in content)
        if isinstance(content, str):
            content = content.encode()
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return file


def test_mmlu_is_read_with_quotes_and_rows_over_several_lines(write) -> None:
    tasks = read_mmlu(write("weather_val.csv", MMLU))
    assert tasks[0] == Task('What is 2 + 2, in "words"?', "B", ("three", "four", "five, or so", "six"), "weather")
    assert tasks[1].question == "Consider:\n(1) rain\n(2) snow"
    assert [task.choice for task in tasks] == [1, 3]
    # As a spreadsheet saves it: other line ends, and a byte order mark.
    assert read_mmlu(write("same.csv", "\ufeff" + MMLU.replace("\n", "\r\n")))[0].question == tasks[0].question


def test_mmlu_is_read_from_a_folder_in_the_order_of_names(write, tmp_path: Path) -> None:
    for name in ("b_test.csv", "a_dev.csv", "notes.txt"):
        write(name, MMLU)
    assert [task.subject for task in read_mmlu(tmp_path)] == ["a", "a", "b", "b"]


def test_humaneval_is_read_plain_and_packed(write) -> None:
    expected = [CodeTask(**CODE), CodeTask(**{**CODE, "task_id": "HumanEval/1"})]
    lines = [CODE, {**CODE, "task_id": "HumanEval/1"}]
    text = "\n\n".join(map(json.dumps, lines)) + "\n"
    assert read_humaneval(write("HumanEval.jsonl", text)) == expected
    assert read_humaneval(str(write("HumanEval.jsonl.gz", gzip.compress(text.encode())))) == expected


def test_mini_crosswords_are_read(write) -> None:
    lower = [CROSSWORD[0], [letter.lower() for letter in CROSSWORD[1]]]
    puzzles = read_mini_crosswords(write("mini.json", json.dumps([CROSSWORD, lower], indent=1)))
    assert puzzles == [MiniCrossword(tuple(CROSSWORD[0]), "".join(GRID))] * 2


def test_gaia_is_read_and_its_files_lie_beside_it(write, tmp_path: Path) -> None:
    kept_back = {**GAIA, "Level": "2", "Final answer": "?", "file_name": ""}
    number = {**GAIA, "Final answer": 17, "file_name": None}
    tasks = read_gaia(write("metadata.jsonl", [GAIA, kept_back, number]))
    assert tasks[0] == GaiaTask("c61d", "How many?", 1, "17", tmp_path / "table.xlsx")
    assert tasks[1] == GaiaTask("c61d", "How many?", 2, None, None)
    assert tasks[2].answer == "17"


def test_aokvqa_is_read_and_images_are_found_by_a_pattern(write) -> None:
    path = write("aokvqa.json", json.dumps([VISUAL]))
    expected = VisualQuestion(
        "22jbM6gDxdaMaunuzgrsBB",
        "What is in the motorcyclist's mouth?",
        ("toothpick", "food", "popsicle stick", "cigarette"),
        3,
        Path("coco/val2017/000000461751.jpg"),
        ("cigarette", "cigar"),
    )
    assert read_aokvqa(path) == [expected]
    assert read_aokvqa(path, "images/{image_id}.png")[0].image == Path("images/461751.png")
    kept_back = {key: value for key, value in VISUAL.items() if key not in ("correct_choice_idx", "direct_answers")}
    assert read_aokvqa(write("test.json", json.dumps([kept_back])))[0].answer is None


def test_records_of_captions_are_read_in_both_forms(write) -> None:
    expected = CaptionTask("An abstract", "A paragraph", "Paris, 2014, a march", Path("pictures/a/b.jpg"), "Paris")
    assert read_tara(write("tara.txt", TARA + "\r\n"), "pictures") == [expected]
    record = dict(zip(("abstract", "paragraph", "entities", "image", "place"), TARA.split("_!_"), strict=True))
    assert read_tara(write("tara.jsonl", [record]), "pictures") == [expected]


def test_tasks_of_your_own_are_read(write) -> None:
    lines = [
        {"question": "Capital of France?", "answer": "Paris"},
        {"question": "2 + 2?", "answer": 4, "options": []},
        {"question": "2 + 2?", "answer": 4, "options": [3, 4], "subject": "sums"},
        {"question": "2 + 2?", "answer": "B", "options": ["three", "four"]},
    ]
    tasks = read_tasks(write("tasks.jsonl", lines))
    assert tasks[0] == Task("Capital of France?", "Paris")
    assert tasks[1] == Task("2 + 2?", "4")
    assert tasks[2] == Task("2 + 2?", "B", ("3", "4"), "sums")
    assert [task.choice for task in tasks] == [None, None, 1, 1]


def without(record: dict[str, Any], field: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != field}


def array(*records: Any) -> str:
    return "[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n"


PLAIN = {"question": "q", "answer": "a"}
DEFECTS: list[tuple[Callable[..., Any], Any, str]] = [
    (read_mmlu, "", "holds no record"),
    (read_mmlu, MMLU + "a,b\n", r":5 must have 6 cells \(question, A, B, C, D, answer\), got 2"),
    (read_mmlu, "q,1,2,3,4,E\n", ":1: the answer must be A, B, C or D, got 'E'"),
    (read_mmlu, "q,1,2,3,4,\n", ":1: the answer must be A, B, C or D, got ''"),
    (read_mmlu, " ,1,2,3,4,A\n", ":1: the question is empty"),
    (read_mmlu, 'q,1,2,3,4,A\n"open', ":2 is no CSV: unexpected end of data"),
    (read_mmlu, b"q,1,2,3,4,A\nq,\xff,2,3,4,A\n", ":2 is not UTF-8: byte 0xff"),
    (read_humaneval, [CODE, without(CODE, "test")], ":2 has no 'test'"),
    (read_humaneval, [{**CODE, "prompt": 3}], ":1: 'prompt' must be a string, got 3"),
    (read_humaneval, [{**CODE, "entry_point": "two"}], ":1: 'prompt' does not define two"),
    (read_humaneval, [{**CODE, "entry_point": "one(); two"}], ":1: 'entry_point' must be a name"),
    (read_humaneval, [{**CODE, "test": "assert True"}], ":1: 'test' does not define check"),
    (read_humaneval, json.dumps(CODE) + "\n{", ":2 is no JSON: Expecting property name"),
    (read_humaneval, "[1]", r":1 must be a JSON object, got \[1\]"),
    (read_humaneval, gzip.compress(b"{}" * 99)[:-9], "is a damaged gzip file"),
    (read_humaneval, '{"a": ' + "[" * 100_000, ":1 is no JSON"),
    (read_humaneval, '{"a": ' + "1" * 5_000 + "}", ":1 is no JSON: Exceeds the limit"),
    (read_mini_crosswords, "{}", "must hold one JSON array, got '{}'"),
    (read_mini_crosswords, "[]", "holds no record"),
    (read_mini_crosswords, array(CROSSWORD, CROSSWORD[:1]), ":3 must be a pair of clues and letters"),
    (read_mini_crosswords, array([CROSSWORD[0][:9], CROSSWORD[1]]), ":2 must have 10 clues, got 9"),
    (read_mini_crosswords, array([CROSSWORD[0], CROSSWORD[1][:24]]), ":2 must have 25 letters, got 24"),
    (read_mini_crosswords, array([CROSSWORD[0], ["AB", *CROSSWORD[1][1:]]]), r":2: a cell must be a letter .*\['AB'\]"),
    (read_mini_crosswords, array([CROSSWORD[0], ["Ä", *CROSSWORD[1][1:]]]), ":2: a cell must be a letter"),
    (read_mini_crosswords, array(CROSSWORD)[:-3], ":2 must go on with , or ]"),
    (read_mini_crosswords, array(CROSSWORD)[:-2] + ",]", ":3 has a comma before ]"),
    (read_mini_crosswords, array(CROSSWORD) + "x", ":4 goes on after the array"),
    (read_mini_crosswords, array(CROSSWORD)[:-2] + ",\nx]", ":4 is no JSON: Expecting value"),
    (read_gaia, [{**GAIA, "Level": 4}], ":1: 'Level' must be 1, 2 or 3, got '4'"),
    (read_gaia, [{**GAIA, "Level": True}], ":1: 'Level' must be a string, got True"),
    (read_gaia, [without(GAIA, "Question")], ":1 has no 'Question'"),
    (read_gaia, [{**GAIA, "file_name": "../../secret"}], ":1: 'file_name' must stay in its folder, got '../../secret'"),
    (read_gaia, [{**GAIA, "file_name": "/etc/passwd"}], ":1: 'file_name' must stay in its folder"),
    (read_gaia, [{**GAIA, "file_name": ["a"]}], ":1: 'file_name' must be a string"),
    (read_aokvqa, array(VISUAL, {**VISUAL, "correct_choice_idx": 4}), ":3: 'correct_choice_idx' must be from 0 to 3"),
    (read_aokvqa, array({**VISUAL, "correct_choice_idx": True}), ":2: 'correct_choice_idx' must be from 0 to 3"),
    (read_aokvqa, array({**VISUAL, "choices": ["one"]}), r":2: 'choices' must list 2 strings or more, got \['one'\]"),
    (read_aokvqa, array({**VISUAL, "choices": "ab"}), ":2: 'choices' must list 2 strings or more, got 'ab'"),
    (read_aokvqa, array({**VISUAL, "image_id": "7"}), ":2: 'image_id' must be a whole number, got '7'"),
    (read_aokvqa, array({**VISUAL, "split": "../x"}), ":2: 'split' must stay in its folder"),
    (read_aokvqa, array(3), ":2 must be a JSON object, got 3"),
    (read_tasks, [PLAIN, {**PLAIN, "question": " "}], ":2: 'question' is empty"),
    (read_tasks, [without(PLAIN, "answer")], ":1 has no 'answer'"),
    (read_tasks, [{**PLAIN, "answer": None}], ":1: 'answer' must be a string, got None"),
    (read_tasks, [{**PLAIN, "options": ["x"]}], ":1: 'options' must list 2 strings or more"),
    (read_tasks, [{**PLAIN, "options": ["x", "y"]}], ":1: 'answer' must be one of 'options' or its letter, got 'a'"),
    (read_tasks, [{**PLAIN, "answer": "C", "options": ["x", "y"]}], ":1: 'answer' must be one of"),
    (read_tasks, [{**PLAIN, "answer": "A", "options": ["B", "A"]}], ":1: 'answer' 'A' fits several options"),
    (read_tasks, [{**PLAIN, "answer": "x", "options": ["x", "x"]}], ":1: 'answer' 'x' fits several options"),
    (read_tasks, [{**PLAIN, "answer": "x", "options": ["x", *map(str, range(26))]}], "must be at most 26, got 27"),
]


@pytest.mark.parametrize(("read", "content", "message"), DEFECTS)
def test_a_bad_file_is_refused_in_one_line(write, read: Callable[..., Any], content: Any, message: str) -> None:
    path = write("tasks.csv", content)
    with pytest.raises(InputError, match=message) as refusal:
        read(path)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_bad_captions_and_bad_patterns_are_refused(write, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r":2 must have 5 fields with _!_ between, got 4"):
        read_tara(write("tara.txt", TARA + "\n" + TARA.removesuffix("_!_Paris")), tmp_path)
    with pytest.raises(InputError, match=r":1: 'image' must stay in its folder, got '../b.jpg'"):
        read_tara(write("tara.txt", TARA.replace("a/b", "../b")), tmp_path)
    with pytest.raises(InputError, match=":1: 'entities' is empty"):
        read_tara(write("tara.txt", TARA.replace("Paris, 2014, a march", " ")), tmp_path)
    path = write("aokvqa.json", array(VISUAL))
    for pattern in ("{name}.jpg", "{}.jpg", "{image_id", "{image_id:x y}", "{image_id.name}"):
        with pytest.raises(InputError, match="images must be a pattern of"):
            read_aokvqa(path, pattern)
    for read in (read_mmlu, read_humaneval, read_tasks):
        with pytest.raises(InputError, match=r"nowhere.csv cannot be read: No such file"):
            read(tmp_path / "nowhere.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no .csv file"):
        read_mmlu(tmp_path / "empty")


def test_an_image_becomes_a_url_and_nothing_else_does(write) -> None:
    heads = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff\xe0", "gif": b"GIF89a", "webp": b"RIFF\0\0\0\0WEBP"}
    for kind, head in heads.items():
        url = image_url(write("image.bin", head + b"data"))
        start, _, rest = url.partition(",")
        assert start == f"data:image/{kind};base64"
        assert b64decode(rest) == head + b"data"
    with pytest.raises(InputError, match=r"secret.jpg is no PNG, JPEG, GIF or WebP: it starts with 0x726f6f74"):
        image_url(write("secret.jpg", b"root:x:0"))
    with pytest.raises(InputError, match=r"must have at most 20971520 bytes"):
        image_url(write("big.png", b"\x89PNG\r\n\x1a\n" + bytes(20 * 2**20)))
    with pytest.raises(InputError, match="cannot be read"):
        image_url("nowhere.png")
