"""Training in two processes that torchrun starts, against one process in float64."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed_cases import CASES, batches, loss_sum, network, train
from torch import nn

from mindworks.core.distributed import joined
from mindworks.errors import InputError

SCRIPT = Path(__file__).with_name("distributed_cases.py")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found, and what the first heard when the second was killed."""
    folder = tmp_path_factory.mktemp("ranks")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run([*words, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=120, check=False)
    assert (folder / "bereft").exists(), ended.stderr
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    found[0]["bereft"] = (folder / "bereft").read_text()
    return found


def reference(kind: str, count: int) -> dict[str, Any]:
    """The training in one process, in plain torch: the mean over the whole batch."""
    model = network(kind, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    found: dict[str, Any] = {"losses": []}
    for x, mask in batches(count):
        optimizer.zero_grad()
        loss = loss_sum(model, x, mask) / mask.sum()
        loss.backward()
        found.setdefault("gradients", [each.grad.flatten().tolist() for each in model.parameters()])
        optimizer.step()
        found["losses"].append(float(loss.detach()))
    return found | {"weights": {name: each.flatten().tolist() for name, each in model.state_dict().items()}}


def _same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        ours, theirs = list(ours.values()), list(theirs.values())
    flat = [np.concatenate([np.atleast_1d(each) for each in side]) for side in (ours, theirs)]
    assert np.allclose(*flat, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kind", "count", "parts"), CASES)
def test_two_processes_make_the_steps_of_one(kind: str, count: int, parts: int, answers: list[dict[str, Any]]) -> None:
    wanted = reference(kind, count)
    for found in answers:
        for name in ("gradients", "losses", "weights"):
            _same(found[f"{kind} {count} {parts}"][name], wanted[name])
    assert answers[0][f"{kind} {count} {parts}"] == answers[1][f"{kind} {count} {parts}"]


@pytest.mark.parametrize("parts", [1, 3])
def test_a_process_alone_makes_the_same_steps(parts: int) -> None:
    with joined(device="cpu") as workers:
        found = train(workers, "rnn", 5, parts)
    assert not torch.distributed.is_initialized()
    for name, wanted in reference("rnn", 5).items():
        _same(found[name], wanted)


def test_each_process_has_its_part(answers: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(each["small"] for each in answers):
        assert (found["rank"], found["size"], found["first"]) == (rank, 2, rank == 0)
        assert found["rows"] == [[[0, 1], [0, 1], [0, 3], [0, 4]], [[1, 2], [1, 3], [3, 7], [4, 8]]][rank]
        assert found["total"] == [[3, 21], "torch.int64", [1 + rank, 10 + rank], 1.0]
        assert found["state"] == {"weight": [0.0, 0.0], "seen": [0.0, 0.0]}
        assert found["weight"] == 2.0
        assert found["wrong rows"] == "count must be at least 2, one row per process, got 1"
        assert found["wrong weight"] == "count must be positive in at least one process, got a total of 0"


def test_groups_stand_beside_and_after_another(answers: list[dict[str, Any]]) -> None:
    assert [found["inner"] for found in answers] == [[3.0, 4.0]] * 2


def test_a_process_that_is_silent_or_gone_is_an_error_and_not_a_hang(answers: list[dict[str, Any]]) -> None:
    assert answers[0]["silent"].startswith("another process has ended or did not answer in 0.5 s")
    assert answers[0]["bereft"].startswith("another process has ended or did not answer in 1800 s")
    assert not any("\n" in answers[0][name] for name in ("silent", "bereft"))


def test_one_process_is_alone() -> None:
    model = nn.Linear(2, 1)
    with joined(device="cpu") as workers:
        assert (workers.rank, workers.size, workers.first, workers.group) == (0, 1, True, None)
        assert workers.wrap(model) is model
        assert workers.plain(model) is model
        assert workers.rows(3) == slice(0, 3)
        loss = torch.tensor(6.0, requires_grad=True)
        assert workers.mean(loss, 4).item() == 1.5
        total = workers.total(loss)
        assert not total.requires_grad
        assert list(workers.accumulate(model, iter("abc"))) == ["a", "b", "c"]
        with pytest.raises(InputError, match="parts must hold at least one part, got none"):
            list(workers.accumulate(model, []))
        with pytest.raises(InputError, match="count must be at least 1, one row per process, got 0"):
            workers.rows(0)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"RANK": "0"}, "WORLD_SIZE must be an integer, as torchrun sets it, got None"),
        ({"WORLD_SIZE": "2"}, "RANK must be an integer, as torchrun sets it, got None"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK must be an integer, as torchrun sets it, got 'one'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, r"RANK must be in \[0, WORLD_SIZE\), got 2 of 2"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "the environment that torchrun sets is broken: .*MASTER_ADDR"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "x"}, "LOCAL_RANK must be an integer"),
    ],
)
def test_a_broken_environment_is_refused(
    environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=words), joined(device="cpu"):
        pass


def test_a_wrong_argument_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="timeout must be positive, got 0"), joined(timeout=0):
        pass
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match="device must be one of 0 GPUs, got cuda:0"), joined(device="cuda"):
        pass


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match=r"^a defect$"), joined(device="cpu"):
        raise RuntimeError("a defect")
