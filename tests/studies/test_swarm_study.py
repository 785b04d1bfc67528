"""The study of swarms: a smoke run, checks that can fail, and the same optimisation on a model behind a function."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindworks.agents.edge_optimizer import EdgeSettings
from mindworks.agents.models import FunctionModel
from mindworks.agents.task_swarm import LIAR, TaskSwarm, question, reading
from mindworks.agents.voters import simulated_voters
from mindworks.errors import InputError
from mindworks.lab import RunLog
from mindworks.lab.runner import execute
from mindworks.studies.swarm import OURS, STUDY, VARIANTS, Config, digit_examples, gathered, learned, on_tasks


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, Path]:
    folder = tmp_path_factory.mktemp("swarm")
    tiny = replace(STUDY.defaults("smoke"), node_tasks=8, paper_steps=10, message_steps=10)
    record = execute(STUDY, tiny, "smoke", [0, 1], folder)
    return record, json.loads((folder / "data.json").read_text()), folder


def test_smoke_run_leaves_a_whole_record(smoke: tuple[dict, dict, Path]) -> None:
    record, data, folder = smoke
    assert set(data) == {"adversarial", "messages", "nodes"}
    assert set(data["adversarial"]) == set(VARIANTS)
    assert len(data["adversarial"][OURS]["curve"]) == 15
    assert len(record["checks"]) == 12
    assert set(record["tables"]) == {"adversarial", "messages", "nodes"}
    assert (folder / "swarm.svg").stat().st_size > 5_000


def perfect(data: dict) -> dict:
    """The data as they should be."""
    data = copy.deepcopy(data)
    ours, paper = data["adversarial"][OURS], data["adversarial"]["paper"]
    ours |= {"thresholded": [0.8, 0.79], "single": [0.8, 0.8], "full": [0.5, 0.5], "random": [0.5, 0.5]}
    ours |= {"T to decision": [0.99, 0.96], "A to decision": [0.01, 0.02], "reached": [5, 6], "calls_reached": [80, 90]}
    paper |= {"sampled": [0.77, 0.75], "calls_reached": [900, 800]}
    data["messages"][OURS] |= {
        "thresholded": [0.64, 0.7],
        "single": [0.55, 0.6],
        "full": [0.1, 0.2],
        "A to T": [0.1, 0.2],
    }
    data["nodes"]["feedback"]["accuracy"] = [0.5, 0.8]
    return data


def broken(data: dict) -> dict:
    """The data with everything a little too bad."""
    data = perfect(data)
    ours, paper = data["adversarial"][OURS], data["adversarial"]["paper"]
    ours |= {"thresholded": [0.8, 0.78], "full": [0.5, 0.56], "random": [0.5, 0.56]}
    ours |= {
        "T to decision": [0.99, 0.9],
        "A to decision": [0.01, 0.1],
        "reached": [5, 16],
        "calls_reached": [200, 180],
    }
    paper |= {"sampled": [0.77, 0.73]}
    data["messages"][OURS] |= {"thresholded": [0.6, 0.7], "full": [0.1, 0.26], "A to T": [0.1, 0.21]}
    data["nodes"]["feedback"]["accuracy"] = [0.5, 0.69]
    return data


def test_every_check_can_pass_and_fail(smoke: tuple[dict, dict, Path]) -> None:
    assert [check.claim for check in STUDY.check(perfect(smoke[1])) if not check.passed] == []
    assert [check.claim for check in STUDY.check(broken(smoke[1])) if check.passed] == []


def test_a_run_that_never_got_there_fails(smoke: tuple[dict, dict, Path], tmp_path: Path) -> None:
    data = perfect(smoke[1])
    data["adversarial"][OURS] |= {"reached": [None, 5], "calls_reached": [None, 80]}
    failed = [check.claim for check in STUDY.check(data) if not check.passed]
    assert len(failed) == 2
    assert all("95 %" in claim for claim in failed)
    # a paper's setting that never got there makes no ratio that passes
    data["adversarial"][OURS] |= {"reached": [5, 5], "calls_reached": [80, 80]}
    data["adversarial"]["paper"]["calls_reached"] = [None, None]
    assert [check.claim for check in STUDY.check(data) if not check.passed] == [failed[1]]
    assert STUDY.table is not None
    STUDY.table(data)
    assert STUDY.plot(data, tmp_path)[0].exists()


def test_a_seed_runs_the_same_alone_and_beside_others() -> None:
    voters = simulated_voters(20, np.random.default_rng(0)), simulated_voters(20, np.random.default_rng(1))
    settings = EdgeSettings(**VARIANTS[OURS])
    first, again = (learned(*voters, settings, 4, seed=3, truthful=3) for _ in range(2))
    assert first == again
    assert first != learned(*voters, settings, 4, seed=4, truthful=3)


def test_calls_are_counted_as_they_are_made() -> None:
    voters = simulated_voters(20, np.random.default_rng(0)), simulated_voters(20, np.random.default_rng(1))
    shared = learned(*voters, EdgeSettings(**VARIANTS[OURS]), 30, seed=0, truthful=3)
    assert shared["calls"] <= 20 * 6  # a question is put to a voter once
    apart = learned(*voters, EdgeSettings(**VARIANTS["paper"]), 100, seed=0, truthful=3)
    assert 400 < apart["calls"] <= 400 * 6


def test_digits_are_told_in_text() -> None:
    train, test = digit_examples()
    assert len(train) > 400
    assert len(test) > 150
    assert {each.answer for each in train} == {"0", "1", "4", "7"}
    numbers = [int(number) for number in train[0].task.split()]
    assert len(numbers) == 64
    assert max(numbers) == 16


# -- a model behind a function ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    question: str
    answer: str
    options: tuple[str, ...] = ()


TASKS = [Task(f"Which number is {k}?", "AB"[k % 2], ("this one", "that one")) for k in range(12)]
TRUTH = {question(task): task.answer for task in TASKS}


def respond(chat: Any, sample: int) -> str:
    asked = re.match(r"(Which number is \d+\?\nA\. .*\nB\. .*)", chat[1]["content"])
    assert asked is not None
    right = TRUTH[asked[1]]
    return f"The answer is ({'BA'['AB'.index(right)] if chat[0]['content'] == LIAR else right})."


def log(folder: Path) -> RunLog:
    return RunLog(folder)


def test_a_model_learns_through_the_same_study(tmp_path: Path) -> None:
    config = Config(truthful=2, adversaries=2, steps=20, model="m", tasks="t", held_out_share=0.5)
    model = FunctionModel("m", respond)
    row = asyncio.run(on_tasks(model, TASKS, config, 0, log(tmp_path / "whole")))
    assert row["single"] == row["thresholded"] == 1
    assert row["full"] < 1
    assert row["T to decision"] > 0.8 > 0.3 > row["A to decision"]
    assert len(row["curve"]) == 20
    assert 0 < row["calls"] < model.calls  # measuring asks some more
    rows = gathered([row])
    assert [check.passed for check in STUDY.check({"model": rows})] == [True, True]
    bad = rows | {"thresholded": [0.9], "T to decision": [0.2], "A to decision": [0.3]}
    assert [check.passed for check in STUDY.check({"model": bad})] == [False, False]
    assert STUDY.table is not None
    assert "curve" not in STUDY.table({"model": rows})["model"]["held out"]
    assert STUDY.plot({"model": rows}, tmp_path)[0].exists()


def test_a_models_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    config = Config(truthful=1, adversaries=1, steps=15, model="m", tasks="t")

    def failing(chat: Any, sample: int) -> str:
        if model.calls > 12:
            raise KeyboardInterrupt
        return respond(chat, sample)

    whole = asyncio.run(on_tasks(FunctionModel("m", respond), TASKS, config, 0, log(tmp_path / "whole")))
    model = FunctionModel("m", failing)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - an interrupt, or the group that carries it
        asyncio.run(on_tasks(model, TASKS, config, 0, log(tmp_path / "part")))
    resumed = asyncio.run(on_tasks(FunctionModel("m", respond), TASKS, config, 0, log(tmp_path / "part")))
    assert resumed["curve"] == whole["curve"]
    assert resumed["T to decision"] == whole["T to decision"]


def test_answers_are_read_before_they_are_counted() -> None:
    task = TASKS[0]
    assert reading(task, "I think that it must be (B).") == "B"
    assert reading(task, "no idea") is None
    assert reading(Task("Who?", "Ada Lovelace"), "FINAL ANSWER: ada  lovelace.") == "ada lovelace"
    swarm = TaskSwarm(FunctionModel("m", respond), TASKS, 2, 1)
    assert swarm.score(swarm.questions[0], "The answer is A") == 1
    assert swarm.score(swarm.questions[0], "The answer is B") == 0
    assert swarm.score(swarm.questions[0], "") == 0
    with pytest.raises(InputError, match="tasks must be distinct"):
        TaskSwarm(FunctionModel("m", respond), [task, task], 1, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("truthful", 0),
        ("adversaries", 0),
        ("questions", 3),
        ("steps", 14),
        ("message_graphs", 1),
        ("held_out_share", 1.0),
        ("model", "m"),
        ("tasks", "t.jsonl"),
    ],
)
def test_bad_settings_name_the_field(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        Config(**{field: value})  # type: ignore[arg-type]


def test_without_an_edge_a_prompt_is_another() -> None:
    prompts: dict[int, str] = {}

    def recording(chat: Any, sample: int) -> str:
        prompts[sample] = chat[1]["content"]
        return respond(chat, sample)

    asked = TaskSwarm(FunctionModel("m", recording), TASKS, 1, 1)
    pairs = asked.swarm.space.potential.tolist()
    heard = np.array([pair in ([1, 0], [0, 2]) for pair in pairs])
    asked.swarm.graph(heard).run_sync(asked.questions[0])
    assert "liar 1" in prompts[0]
    assert "The answer is (B)." in prompts[0]
    prompts.clear()
    asked.swarm.graph(np.array([pair == [0, 2] for pair in pairs])).run_sync(asked.questions[0])
    assert prompts == {0: asked.questions[0]}
    assert asked.calls == 3
