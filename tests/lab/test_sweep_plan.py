"""Grids, cells and batches: what a sweep is before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mindworks.errors import InputError
from mindworks.lab.study import Study
from mindworks.lab.sweep.grid import label, points
from mindworks.lab.sweep.plan import Plan, plan
from toys import apart, side, walk


def _configs(study: Study, *grids: str, words: tuple[str, ...] = ()) -> list:
    return [request.config for request in points(study, words, grids)]


def _plan(study: Study, root: Path, *grids: str, seeds: int = 4, batch: int = 0) -> Plan:
    return plan(study, "toys", "cpu", _configs(study, *grids), list(range(seeds)), root, batch)


def test_a_grid_is_all_combinations_in_order() -> None:
    found = _configs(walk.STUDY, "drift=0.1,0.2", "mirrored=true,false", words=("--steps", "7"))
    assert [(config.drift, config.mirrored) for config in found] == [
        (0.1, True),
        (0.1, False),
        (0.2, True),
        (0.2, False),
    ]
    assert {config.steps for config in found} == {7}


def test_values_have_the_types_of_their_fields() -> None:
    (one, two) = _configs(walk.STUDY, "start_points=1:2.5,-3")
    assert (one.start_points, two.start_points) == ((1.0, 2.5), (-3.0,))
    assert len(_configs(walk.STUDY, "drift=0.5,0.50,5e-1")) == 1
    assert _configs(walk.STUDY, "bar=-1,2") == _configs(walk.STUDY, "--bar=-1,2")
    assert len(_configs(walk.STUDY)) == 1


@pytest.mark.parametrize(
    ("grids", "words", "message"),
    [
        (["drft=1"], (), "has no field 'drft'; nearest: drift"),
        (["drift"], (), "must be FIELD=A,B"),
        (["drift=0.1,,0.2"], (), "must be FIELD=A,B"),
        (["drift=0.1", "drift=0.2"], (), "names the field drift twice"),
        (["drift=0.1,fast"], (), "--drift must be float, got 'fast'"),
        (["drift=0.1,2"], (), "drift must be"),
        (["mirrored=true,maybe"], (), "must be true or false, got 'maybe'"),
        (["drift=0.1"], ("--drift", "0.2"), "exclude one another"),
        (["save_every=1,2"], ("--save_every", "5"), "exclude one another"),
        (["mirrored=true,false"], ("--no-mirrored",), "exclude one another"),
        (["drift=0.1"], ("--scale", "huge"), "--scale must be one of"),
        (["drift=0.1"], ("--drft", "1"), "unknown flag --drft; nearest: --drift"),
    ],
)
def test_a_wrong_grid_is_refused_in_a_line(grids: list[str], words: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        points(walk.STUDY, words, grids)
    assert "\n" not in str(raised.value)


def test_a_large_grid_reads_each_value_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from mindworks.lab import flags

    calls = []
    real = flags._tyro
    monkeypatch.setattr(flags, "_tyro", lambda *args, **more: calls.append(1) or real(*args, **more))
    many = ",".join(str(n) for n in range(1, 13))
    assert len(_configs(walk.STUDY, f"steps={many}", f"bar={many}")) == 144
    assert len(calls) == 25


def test_a_cell_has_the_same_name_in_every_grid(tmp_path: Path) -> None:
    wide = _plan(walk.STUDY, tmp_path, "drift=0.1,0.5", "bar=0,1")
    narrow = _plan(walk.STUDY, tmp_path, "drift=0.1")
    assert narrow.cells[0].folder in {cell.folder for cell in wide.cells}
    assert len({cell.folder for cell in wide.cells}) == 4
    more = _plan(walk.STUDY, tmp_path, "drift=0.1", seeds=5)
    assert more.cells[0].folder != narrow.cells[0].folder


def test_labels_can_be_names_of_folders() -> None:
    (config,) = _configs(walk.STUDY, "start_points=1:2.5")
    assert label(walk.STUDY, "cpu", config, (3,)) == "cpu_start_points=1.0+2.5_seed=3"
    (odd,) = _configs(apart.STUDY, words=("--fault", "../a b/c\n"))
    assert label(apart.STUDY, "cpu", odd, (0, 1)) == "cpu_fault=..+a+b+c+_seeds=0-1"
    (long,) = _configs(apart.STUDY, words=("--fault", "x" * 500))
    assert len(label(apart.STUDY, "cpu", long, (0,))) == 80


def test_seeds_are_batched_where_the_study_can(tmp_path: Path) -> None:
    assert [cell.seeds for cell in _plan(walk.STUDY, tmp_path).cells] == [(0, 1, 2, 3)]
    assert [cell.seeds for cell in _plan(walk.STUDY, tmp_path, batch=3).cells] == [(0, 1, 2), (3,)]
    singly = _plan(apart.STUDY, tmp_path, "draws=2,3")
    assert [cell.seeds for cell in singly.cells] == [(0,), (1,), (2,), (3,)] * 2
    assert [(len(merge.parts), merge.whole.seeds) for merge in singly.merges] == [(4, (0, 1, 2, 3))] * 2
    assert _plan(apart.STUDY, tmp_path, batch=4).merges == ()
    with pytest.raises(InputError, match="--batch must be at least 0, got -1"):
        _plan(walk.STUDY, tmp_path, batch=-1)


def test_batchable_fields_are_batched_and_others_are_not(tmp_path: Path) -> None:
    made = _plan(side.STUDY, tmp_path, "rate=0.1,0.2,0.3", "steps=2,3")
    assert [len(batch.cells) for batch in made.batches()] == [3, 3]
    assert {cell.config.steps for cell in made.batches()[0].cells} == {2}
    assert [len(batch.cells) for batch in made.batches(2)] == [2, 1, 2, 1]
    assert [len(batch.cells) for batch in _plan(walk.STUDY, tmp_path, "drift=0.1,0.2").batches()] == [1, 1]


def test_the_table_shows_what_differs(tmp_path: Path) -> None:
    assert _plan(side.STUDY, tmp_path, "rate=0.5,0.7").shown == ({"rate": 0.5}, {"rate": 0.7})
    one = plan(side.STUDY, "toys", "cpu", _configs(side.STUDY, words=("--steps", "9")), [0], tmp_path)
    assert one.shown == ({"steps": 9},)


def test_batchable_and_run_many_belong_together() -> None:
    from dataclasses import replace

    with pytest.raises(InputError, match="batchable and run_many"):
        replace(side.STUDY, run_many=None)
    with pytest.raises(InputError, match="unknown fields batchable"):
        replace(side.STUDY, batchable=("rat",))
    with pytest.raises(InputError, match="exclude"):
        replace(side.STUDY, combine=lambda parts: parts[0])
