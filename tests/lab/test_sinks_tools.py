"""TensorBoard, W&B and trackio for real, on this machine alone: what they stored, read back with their own readers."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mindworks.lab import Check, RunLog
from mindworks.lab.processes import SeedsFailed
from mindworks.lab.progress import Display
from mindworks.lab.runner import execute
from toys import apart, walk

STEPS, SAVED, DIES = 30, 11, 20
TAKEN = {"step": list(range(STEPS)), "value": [0.5 * step for step in range(STEPS)]}


class Crash(Exception):
    """Stands in for a defect."""


class Listening(Display):
    """A display that keeps what is said."""

    def __init__(self) -> None:
        super().__init__(terminal=False)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@dataclass(frozen=True)
class Config:
    """Steps up."""

    height: float = 0.5
    """of a step, in metres"""
    sizes: tuple[int, ...] = (1, 2)
    """something that is no number"""


def stairs(dies: bool) -> Any:
    """A study that saves once, and dies later if it `dies`."""

    def climb(log: RunLog) -> dict:
        begin = (log.load() or {"step": 0})["step"]
        for step in range(begin, STEPS):
            log.metric(step=step, value=0.5 * step, nothing=float("nan"))
            if step + 1 == SAVED:
                log.save({"step": SAVED}, SAVED)
            if dies and step == DIES:
                raise Crash
        log.metric(kind="last", each=[1.0, 3.0])
        return {"top": 0.5 * STEPS}

    return replace(
        walk.STUDY,
        name="stairs",
        config=Config,
        scales={"smoke": {}},
        seeds={"smoke": 1},
        run=lambda config, seeds, log: log.stage("up", climb),
        check=lambda data: [Check("the top is high", data["top"], ">=", 10.0)],
        plot=lambda data, folder: [],
        table=None,
    )


def climbed(folder: Path, sink: str) -> None:
    """The stairs, after a defect and a resumed run, with a sink."""
    display = Listening()
    with pytest.raises(Crash):
        execute(stairs(True), Config(), "smoke", [0], folder, display=display, track=[sink])
    sent = json.loads((folder / "tracking" / sink / "state.json").read_text())["sent"]
    assert sent == {"metrics.jsonl": DIES + 1}, "more than the checkpoint vouches for"
    execute(stairs(False), Config(), "smoke", [0], folder, True, display, track=[sink])
    assert not [text for text in display.said if text.startswith("warning")], display.said
    assert sum(text.startswith(f"tracking with {sink}: ") for text in display.said) == 2


def drawn(folder: Path, sink: str) -> dict[str, list[float]]:
    """The draws of each seed of the study with a process per seed, with a sink; what `metrics.jsonl` says of them."""
    display = Listening()
    execute(apart.STUDY, apart.Config(), "smoke", [4, 5], folder, display=display, track=[sink])
    assert not [text for text in display.said if text.startswith("warning")], display.said
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {f"seed-{seed}": [line["draw"] for line in lines if line["seed"] == seed] for seed in (4, 5)}


# -- TensorBoard ------------------------------------------------------------------------------------------------------


@pytest.fixture
def events() -> Callable[[Path], Any]:
    """What TensorBoard loads from a folder."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def load(folder: Path) -> Any:
        return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()

    return load


def curve(loaded: Any, name: str) -> tuple[list[int], list[float]]:
    found = loaded.Scalars(name)
    return [event.step for event in found], [event.value for event in found]


def test_tensorboard_holds_every_line_of_a_resumed_run_once(tmp_path: Path, events: Callable[[Path], Any]) -> None:
    climbed(tmp_path, "tensorboard")
    loaded = events(tmp_path / "tracking" / "tensorboard")
    assert curve(loaded, "up/value") == (TAKEN["step"], TAKEN["value"])
    assert curve(loaded, "up/last/each") == ([1], [2.0])
    assert curve(loaded, "checks/1/value") == ([0], [15.0])
    assert set(loaded.Tags()["scalars"]) == {
        *("up/step", "up/value", "up/last/each"),
        *("checks/1/value", "checks/1/bar", "checks/1/passed", "checks/passed", "checks/count"),
    }
    texts = {tag: loaded.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in ("config", "checks")}
    assert '"height": 0.5' in texts["config"]
    assert '"study": "stairs"' in texts["config"]
    assert "| 1 | the top is high | 15.0 | >= 10.0 | passes |" in texts["checks"]
    assert loaded.SummaryMetadata("_hparams_/session_start_info").plugin_data.plugin_name == "hparams"


def test_tensorboard_has_a_folder_per_seed(tmp_path: Path, events: Callable[[Path], Any]) -> None:
    for seed, draws in drawn(tmp_path, "tensorboard").items():
        steps, values = curve(events(tmp_path / "tracking" / "tensorboard" / seed), "draw")
        assert (steps, values) == (list(range(5)), pytest.approx(draws))


def test_a_finished_run_can_be_sent_later(tmp_path: Path, events: Callable[[Path], Any]) -> None:
    for track in ([], ["tensorboard"], ["tensorboard"]):
        execute(stairs(False), Config(), "smoke", [0], tmp_path, bool(track), Listening(), track=track)
    loaded = events(tmp_path / "tracking" / "tensorboard")
    assert curve(loaded, "up/value") == (TAKEN["step"], TAKEN["value"])
    assert curve(loaded, "checks/passed") == ([0], [1.0])


def test_seeds_that_fail_are_sent_as_far_as_they_came(tmp_path: Path, events: Callable[[Path], Any]) -> None:
    (tmp_path / "fault").write_text("4 input")
    config = apart.Config(fault=str(tmp_path / "fault"))
    with pytest.raises(SeedsFailed):
        execute(apart.STUDY, config, "smoke", [4], tmp_path / "run", display=Listening(), track=["tensorboard"])
    loaded = events(tmp_path / "run" / "tracking" / "tensorboard" / "seed-4")
    assert curve(loaded, "draw")[0] == list(range(5))


# -- Weights & Biases -------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B with no account, no home and no server."""
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_RUN_GROUP", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def stored(path: Path) -> Iterator[Any]:
    """The records of a `.wandb` file: blocks of 32 KiB, each with pieces behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        rest = 32768 - place % 32768
        if rest < 7:
            place += rest
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(record)
            record = b""


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def wandb_runs(folder: Path) -> list[dict[str, Any]]:
    """Every W&B run stored below `folder`, oldest first: id, name, group, config, rows, summary, axes, exit status."""
    found = []
    for path in sorted(folder.rglob("*.wandb"), key=lambda path: path.stat().st_mtime):
        run: dict[str, Any] = {"rows": [], "summary": {}, "axes": {}, "exit": None}
        for record in stored(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                config = _items(record.run.config.update)
                run |= {"id": record.run.run_id, "name": record.run.display_name, "group": record.run.run_group}
                run |= {"project": record.run.project, "config": config, "tags": list(record.run.tags)}
            elif kind == "history":
                run["rows"].append(_items(record.history.item))
            elif kind == "summary":
                run["summary"] |= _items(record.summary.update)
            elif kind == "metric":
                run["axes"][record.metric.name] = record.metric.step_metric
            elif kind == "exit":
                run["exit"] = record.exit.exit_code
        found.append(run)
    return found


@pytest.mark.usefixtures("offline")
def test_wandb_continues_the_same_run_and_gets_every_line_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    climbed(folder, "wandb")
    first, second = wandb_runs(folder / "tracking" / "wandb")
    assert first["id"] == second["id"] == json.loads((folder / "tracking" / "wandb" / "state.json").read_text())["id"]
    rows = [*first["rows"], *second["rows"]]
    assert [row["_step"] for row in rows] == list(range(STEPS + 1))
    assert [(row["up/step"], row["up/value"]) for row in rows[:-1]] == list(zip(*TAKEN.values(), strict=True))
    assert (rows[-1]["up/last/each"], rows[-1]["up/last/line"]) == (2.0, 1)
    assert second["axes"] == {"up/value": "up/step", "up/last/each": "up/last/line"}
    assert (first["name"], first["project"], first["tags"]) == ("run", "mindworks", ["stairs", "smoke"])
    assert {name: first["config"][name] for name in ("height", "sizes", "study", "scale", "seeds")} == {
        "height": 0.5,
        "sizes": [1, 2],
        "study": "stairs",
        "scale": "smoke",
        "seeds": [0],
    }
    assert second["summary"]["checks/1/value"] == 15.0
    assert second["summary"]["checks/1/claim"] == "the top is high"
    assert (first["exit"], second["exit"]) == (1, 0)
    assert not (tmp_path / "wandb").exists()


@pytest.mark.usefixtures("offline")
def test_wandb_has_a_run_per_seed_in_one_group(tmp_path: Path) -> None:
    draws = drawn(tmp_path / "run", "wandb")
    runs = {run["name"].removeprefix("run").removeprefix("-"): run for run in wandb_runs(tmp_path / "run")}
    assert {name: [row["draw"] for row in run["rows"]] for name, run in runs.items()} == {"": [], **draws}
    assert len({run["group"] for run in runs.values()}) == 1
    assert runs[""]["summary"]["checks/passed"] == 1


@pytest.mark.usefixtures("offline")
def test_wandb_without_an_account_costs_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE")
    display = Listening()
    record = execute(stairs(False), Config(), "smoke", [0], tmp_path / "run", display=display, track=["wandb"])
    assert record["checks"][0]["passed"]
    (warning,) = display.said
    assert warning.startswith("warning: tracking with wandb is off: ")
    assert re.search("api.key", warning, re.IGNORECASE)


# -- trackio ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Any]]:
    """What trackio stored, read through its API: for each run its config and its rows."""
    pytest.importorskip("trackio")
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))

    def read() -> dict[str, Any]:
        import trackio
        from trackio import sqlite_storage

        monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")
        logs = sqlite_storage.SQLiteStorage.get_logs
        return {
            run.name: (run.config, logs("mindworks", run.name, run_id=run.id))
            for run in trackio.Api().runs("mindworks")
        }

    return read


def test_trackio_continues_the_same_run_and_gets_every_line_once(
    tmp_path: Path, database: Callable[[], dict[str, Any]]
) -> None:
    climbed(tmp_path / "run", "trackio")
    ((name, (config, rows)),) = database().items()
    assert name.startswith("run-")
    assert {key: config[key] for key in ("height", "sizes", "study")} == {
        "height": 0.5,
        "sizes": [1, 2],
        "study": "stairs",
    }
    assert [(row["step"], row["up/value"]) for row in rows if "up/value" in row] == list(
        zip(*TAKEN.values(), strict=True)
    )
    assert [row["up/last/each"] for row in rows if "up/last/each" in row] == [2.0]
    assert [row["checks/1/value"] for row in rows if "checks/1/value" in row] == [15.0]


def test_trackio_has_a_run_per_seed_in_one_group(tmp_path: Path, database: Callable[[], dict[str, Any]]) -> None:
    draws = drawn(tmp_path / "run", "trackio")
    found = {name: (config["_Group"], rows) for name, (config, rows) in database().items()}
    (whole,) = (name for name in found if not name.endswith(("-seed-4", "-seed-5")))
    for seed, values in draws.items():
        group, rows = found[f"{whole}-{seed}"]
        assert (group, [row["draw"] for row in rows]) == (whole, values)
    assert [row["checks/passed"] for row in found[whole][1]] == [1]
