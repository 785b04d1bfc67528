"""The study of societies: a smoke run, checks that can fail, and the same protocols with a model as every member."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from mindworks.agents.models import FunctionModel
from mindworks.data.agent_tasks import read_tasks
from mindworks.errors import InputError
from mindworks.lab.runner import execute
from mindworks.studies.mindstorm import (
    BEST,
    CLAIMED,
    DEMOCRACY,
    LEADER,
    LIARS,
    LONERS,
    MARKET,
    PLAIN,
    STORM,
    STUDY,
    Config,
    accuracy,
    mixture,
    speakers,
)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, Path]:
    folder = tmp_path_factory.mktemp("mindstorm")
    record = execute(STUDY, STUDY.defaults("smoke"), "smoke", [0], folder)
    return record, json.loads((folder / "data.json").read_text()), folder


def test_smoke_run_leaves_a_whole_record(smoke: tuple[dict, dict, Path]) -> None:
    record, data, folder = smoke
    assert list(data) == ["3", "7", "7, colluding liars", "7, independent liars", "7, ignorant"]
    assert all(0 <= row[name][0] <= 1 for row in data.values() for name in (BEST, DEMOCRACY, CLAIMED, STORM, LEADER))
    assert record["tables"]["7 members: accuracy"][STORM]["n"] == 1
    assert (folder / "mindstorm.svg").stat().st_size > 5_000
    # 2 readers, 40 questions to learn from and 30 asked twice: at most 3 rounds of a question and 2 answers, 1 decision
    assert 0 < data["3"]["texts"][0] <= (40 + 30) * (3 * 3 + 1) + 30 * 3 * 3


def filled(data: dict, good: bool) -> dict:
    """The data of a run in which everything holds, or nothing does."""
    data = copy.deepcopy(data)
    for name, low in (("3", 0.5), ("7", 0.9)):
        data[name] |= {BEST: [0.7], DEMOCRACY: [0.85 if good else 0.75], STORM: [low if good else 0.7]}
    data[f"7, {LIARS}"] |= {CLAIMED: [0.4 if good else 0.7], LEADER: [0.95 if good else 0.8]}
    data[f"7, {LIARS}"] |= {MARKET: [0.9 if good else 0.8], "honest wealth": [0.99 if good else 0.9]}
    return data


def test_every_check_can_pass_and_fail(smoke: tuple[dict, dict, Path]) -> None:
    assert [check.passed for check in STUDY.check(filled(smoke[1], True))] == [True] * 7
    assert [check.passed for check in STUDY.check(filled(smoke[1], False))] == [False] * 7


def test_the_bars_are_those_of_the_claim(smoke: tuple[dict, dict, Path]) -> None:
    bars = [(check.op, check.bar) for check in STUDY.check(smoke[1])]
    assert bars == [(">=", 0.1), (">=", 0.01), (">", 0), ("<=", 0.6), (">=", 0.89), (">=", 0.86), (">=", 0.98)]


def test_wealth_is_judged_by_its_worst_seed(smoke: tuple[dict, dict, Path]) -> None:
    data = filled(smoke[1], True)
    data[f"7, {LIARS}"]["honest wealth"] = [1.0, 0.97]
    assert [check.passed for check in STUDY.check(data)] == [True] * 6 + [False]


def test_a_mixture_turns_the_share_it_should() -> None:
    from mindworks.agents.society import Expert, Liar

    members = [Expert(str(i), lambda question: "It is 1.") for i in range(10)]
    mixed, honest = mixture(members, LONERS, 0.4, seed=1)
    assert [member.name for member in mixed] == [member.name for member in members]
    assert sum(isinstance(member, Liar) for member in mixed) == 4
    assert len(honest) == 6
    assert mixture(members, LONERS, 0.4, seed=1)[1] == honest != mixture(members, LONERS, 0.4, seed=2)[1]
    assert mixture(members, PLAIN, 0.4, seed=1) == (members, [str(i) for i in range(10)])


def test_no_answer_is_a_wrong_one() -> None:
    assert accuracy(["A", None, "B"], ["A", "A", "A"]) == pytest.approx(1 / 3)


def test_the_same_protocols_with_a_model_as_every_member(tmp_path: Path) -> None:
    lines = [{"question": f"What is {i} + 1?", "options": [str(i), str(i + 1)], "answer": "B"} for i in range(6)]
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, lines)))

    def respond(chat: Any, sample: int) -> str:
        return "It is A. I am certain." if sample == 3 else "The answer is (B). I am fairly sure."

    model = FunctionModel("fake", respond)
    row = speakers(model, read_tasks(tmp_path / "tasks.jsonl"), count=3, stake=0.05, seed=1)  # samples 3, 4, 5
    assert {name: row[name] for name in (BEST, DEMOCRACY, CLAIMED, MARKET, STORM, LEADER)} == {
        **dict.fromkeys((BEST, DEMOCRACY, CLAIMED, MARKET, STORM, LEADER), 1.0)
    }
    assert row["failures"] == 0
    assert row["questions"] == 3
    # 3 questions: market twice (to learn, to answer), two votes, two rounds of mindstorm, three rounds and a leader
    assert model.calls == 3 * 3 * (2 + 2 + 2 + 3) + 3 * 3


def test_a_model_that_never_answers_is_an_error(tmp_path: Path) -> None:
    def respond(chat: Any, sample: int) -> str:
        raise RuntimeError("connection refused")

    (tmp_path / "tasks.jsonl").write_text('{"question": "1 + 1?", "options": ["2", "3"], "answer": "A"}\n' * 2)
    with pytest.raises(InputError, match="connection refused"):
        speakers(FunctionModel("fake", respond), read_tasks(tmp_path / "tasks.jsonl"), 2, 0.05, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learned", 0),
        ("test", 501),
        ("sizes", (1, 5)),
        ("sizes", (5, 3)),
        ("mixed", 1.0),
        ("stake", 0.0),
        ("lr", 0.0),
        ("model", "qwen3"),
        ("tasks", "tasks.jsonl"),
    ],
)
def test_bad_settings_name_the_field(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field) as caught:
        Config(**{field: value})
    assert str(value) in str(caught.value)
