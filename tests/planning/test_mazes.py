"""The family of mazes, its splits, the set that holds them, and the published arrays there and back."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mindworks.data import read_mazes, write_mazes
from mindworks.errors import InputError
from mindworks.planning import mazes as module
from mindworks.planning.mazes import Mazes, generate, splits
from mindworks.planning.mechanisms import MECHANISMS

NAMES = list(MECHANISMS)
PERFECT = (0.0, 0.0)


def geometries(*sets: Mazes) -> list[bytes]:
    return [one.numpy().tobytes() for mazes in sets for one in mazes.free]


def small(name: str = "news") -> Mazes:
    """Three 3 x 4 maps without walls around them: one free, one with a wall, one with a cell that is cut off."""
    free = np.ones((3, 3, 4), bool)
    free[1, 1, 1] = free[2, 1, 3] = free[2, 2, 2] = free[2, 1, 2] = False
    return Mazes.from_arrays(free, np.array([[0, 0, 0], [0, 2, 1], [0, 0, 3]]), name)


# -- the family -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 12, (3, 12), (9, 14), (14, 9)])
def test_perfect_mazes_are_trees_of_all_odd_cells(size: int | tuple[int, int]) -> None:
    mazes = generate(80, size, decimation=PERFECT, seed=1)
    mazes = mazes[(mazes.goal[:, 1:] % 2 == 1).all(1)]  # elsewhere the goal opens a cell more
    free = mazes.free
    assert free.shape[1:] == ((size, size) if isinstance(size, int) else size)
    assert len(free) > 5
    assert free[:, 1::2, 1::2].all()
    edges = (free[:, 1:] & free[:, :-1]).flatten(1).sum(1) + (free[:, :, 1:] & free[:, :, :-1]).flatten(1).sum(1)
    assert torch.equal(edges, free.flatten(1).sum(1) - 1)
    assert torch.equal(mazes.distances[:, 0] >= 0, free)


def plain_tree(rows: int, columns: int, rng: random.Random) -> frozenset[Any]:
    """Depth-first search with a stack of cells and where they were seen from, one cell at a time."""
    stack: list[Any] = [((0, 0), None)]
    visited, edges = set(), set()
    while stack:
        cell, came = stack.pop()
        if cell in visited:
            continue
        visited.add(cell)
        if came is not None:
            edges.add(frozenset((cell, came)))
        around = [(cell[0] - 1, cell[1]), (cell[0] + 1, cell[1]), (cell[0], cell[1] - 1), (cell[0], cell[1] + 1)]
        rng.shuffle(around)
        stack += [(to, cell) for to in around if 0 <= to[0] < rows and 0 <= to[1] < columns and to not in visited]
    return frozenset(edges)


def test_trees_are_as_frequent_as_in_a_plain_search() -> None:
    count = 6000
    mazes = generate(count, (5, 7), decimation=PERFECT, seed=0)
    free = mazes.free[(mazes.goal[:, 1:] % 2 == 1).all(1)]  # elsewhere the goal hides whether the wall was open
    ours: Counter[Any] = Counter()
    for one in free.numpy():
        edges = {frozenset(((i, j), (i, j + 1))) for i in range(2) for j in range(2) if one[2 * i + 1, 2 * j + 2]}
        edges |= {frozenset(((0, j), (1, j))) for j in range(3) if one[2, 2 * j + 1]}
        ours[frozenset(edges)] += 1
    rng = random.Random(0)
    plain = Counter(plain_tree(2, 3, rng) for _ in range(count))
    assert ours.keys() == plain.keys()
    for tree, times in plain.items():
        assert ours[tree] / len(free) == pytest.approx(times / count, abs=0.035)


def test_decimation_opens_every_wall_inside_with_its_probability() -> None:
    closed = generate(400, 15, decimation=PERFECT, seed=4)
    opened = generate(400, 15, decimation=(0.3, 0.3), seed=4)
    assert torch.equal(closed.goal, opened.goal)  # the same numbers: the same trees and goals
    walls = ~closed.free
    inside = walls[:, 1:-1, 1:-1]
    assert opened.free[:, 1:-1, 1:-1][inside].double().mean().item() == pytest.approx(0.3, abs=0.01)
    assert opened.free[closed.free].all()
    border = torch.ones(15, 15, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert not opened.free[:, border].any()
    closed, opened = (generate(3, (8, 9), decimation=(share, share), seed=0).free for share in (0.0, 1.0))
    assert opened[:, 1:-1, 1:-1].all()
    assert not opened[:, 0].any()
    assert not opened[:, :, [0, -1]].any()
    assert closed[:, -1, 1::2].all()  # an even height has paths along its last row
    assert torch.equal(opened[:, -1], closed[:, -1])


def test_decimation_is_drawn_for_each_maze() -> None:
    closed = generate(600, 21, decimation=PERFECT, seed=2).free[:, 1:-1, 1:-1]
    opened = generate(600, 21, decimation=(0.2, 0.8), seed=2).free[:, 1:-1, 1:-1]
    shares = (opened & ~closed).flatten(1).sum(1) / (~closed).flatten(1).sum(1)
    assert shares.mean().item() == pytest.approx(0.5, abs=0.02)
    assert shares.std().item() == pytest.approx(0.6 / 12**0.5, abs=0.02)


def test_goals_are_uniform_inside_but_for_the_start() -> None:
    mazes = generate(8000, (5, 6), mechanism="diffdrive", seed=0)
    places = Counter(map(tuple, mazes.goal[:, 1:].tolist()))
    assert set(places) == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3, 4)} - {(1, 1)}
    assert max(abs(times / 8000 - 1 / 11) for times in places.values()) < 0.015
    turned = torch.bincount(mazes.goal[:, 0], minlength=4) / 8000
    torch.testing.assert_close(turned, torch.full((4,), 0.25), atol=0.02, rtol=0)
    assert mazes.free[torch.arange(8000), mazes.goal[:, 1], mazes.goal[:, 2]].all()


def test_the_same_seed_gives_the_same_mazes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    mazes = generate(9, 11, seed=7)
    assert geometries(generate(9, 11, seed=7)) == geometries(mazes)
    assert geometries(generate(4, 11, seed=7)) == geometries(mazes[:4])
    assert geometries(generate(9, 11, mechanism="diffdrive", seed=7)) == geometries(mazes)
    assert geometries(generate(9, 11, seed=np.random.default_rng(7))) == geometries(mazes)
    assert not set(geometries(generate(9, 11, seed=8))) & set(geometries(mazes))
    monkeypatch.setattr(module, "_NUMBERS", 300)  # two mazes at once
    again = generate(9, 11, seed=7)
    assert geometries(again) == geometries(mazes)
    assert torch.equal(again.goal, mazes.goal)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


# -- splits -----------------------------------------------------------------------------------------------------------


def test_no_two_mazes_of_the_splits_have_the_same_walls() -> None:
    family: dict[str, Any] = {"decimation": (0, 0.5), "seed": 3}
    assert len(set(geometries(generate(30, (5, 7), **family)))) < 25  # the family is small
    parts = splits((5, 7), (15, 10, 5), **family)
    assert [len(part) for part in parts] == [15, 10, 5]
    assert len(set(geometries(*parts))) == 30
    more = generate(20, (5, 7), avoid=parts[0], **family)
    assert len(more) == 20
    assert len(set(geometries(more, parts[0]))) == 35
    assert geometries(*splits((5, 7), (15, 10, 5), **family)) == geometries(*parts)
    assert geometries(splits((5, 7), (7, 0, 1), **family)[0]) == geometries(parts[0][:7])
    assert len(generate(20, (5, 7), avoid=generate(5, 7, seed=3), **family)) == 20  # of another size


def test_a_family_that_is_too_small_is_refused() -> None:
    # Trees of 5 x 5 have one closed wall, of the two next to (1, 1); a goal may open it or the pillar in the middle.
    parts = splits(5, (2, 2, 1), decimation=PERFECT, seed=0)
    assert len(set(geometries(*parts))) == 5
    with pytest.raises(InputError, match="count must be at most the number of different mazes of the family, got 6: "):
        splits(5, (2, 2, 2), decimation=PERFECT, seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": -1, "size": 5}, "count must be at least 0, got -1"),
        ({"count": 1, "size": 2}, "size must be at least 3 by 4 to have a start and a goal inside, got 2 by 2"),
        ({"count": 1, "size": (9, 2)}, "size must be at least 3 by 4"),
        (
            {"count": 1, "size": 5, "decimation": (0.5, 0.4)},
            r"decimation must be a range in \[0, 1\], got \(0.5, 0.4\)",
        ),
        ({"count": 1, "size": 5, "decimation": (0.0, 1.5)}, "decimation must be a range"),
        (
            {"count": 1, "size": 5, "mechanism": "knight"},
            "mechanism must be one of news, moore, diffdrive, got 'knight'",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        generate(**arguments, seed=0)


def test_splits_need_three_counts() -> None:
    with pytest.raises(InputError, match=r"counts must be three \(train, validation, test\), got \(1, 2\)"):
        splits(5, (1, 2), seed=0)  # type: ignore[arg-type]


# -- the set ----------------------------------------------------------------------------------------------------------


def test_inputs_are_the_map_and_the_goal_of_each_orientation() -> None:
    free = np.array([[[1, 1, 0], [0, 1, 1]]])
    mazes = Mazes.from_arrays(free, [[2, 0, 1]], "diffdrive")
    inputs = mazes.inputs()
    assert inputs.dtype == torch.float32
    assert inputs.shape == (1, 5, 2, 3)
    assert inputs[0, 0].tolist() == free[0].tolist()
    assert inputs[0, 1:].nonzero().tolist() == [[2, 0, 1]]
    assert inputs[0, 3, 0, 1] == 1


@pytest.mark.parametrize("index", [slice(1, 3), [2, 0], torch.tensor([True, False, True]), np.array([1]), 2, -1])
def test_a_part_is_the_same_computed_before_and_after(index: Any) -> None:
    before, after = small(), small()
    assert after.optimal.any()
    late, early = before[index], after[index]
    assert "distances" in vars(early)
    assert "distances" not in vars(late)
    expected = torch.arange(3)[[index] if isinstance(index, int) else index]
    assert len(late) == len(early) == len(expected)
    assert torch.equal(late.goal, small().goal[expected])
    for name in ("free", "goal", "distances", "optimal"):
        assert torch.equal(getattr(late, name), getattr(early, name))


def test_a_set_ends() -> None:
    assert [int(one.goal[0, 1]) for one in small()] == [0, 2, 0]  # type: ignore[attr-defined]
    with pytest.raises(IndexError, match="maze 3 of a set of 3"):
        small()[3]
    assert small()[:0].target().shape == (0, 4, 1, 3, 4)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_padding_leaves_the_paths_alone(name: str, known: bool) -> None:
    parts = [small(name), generate(2, (5, 6), mechanism=name, seed=0), generate(2, (7, 4), mechanism=name, seed=0)]
    if known:
        assert all(part.optimal.any() for part in parts)
    whole = Mazes.concatenate(parts)
    assert ("optimal" in vars(whole)) == known
    assert whole.free.shape == (7, 7, 6)
    first = 0
    for part in parts:
        here, (height, width) = whole[first : first + len(part)], part.free.shape[1:]
        for field in ("free", "distances", "optimal"):
            assert torch.equal(getattr(here, field)[..., :height, :width], getattr(part, field))
        assert not here.free[:, height:].any()
        assert (here.distances[..., width:] == -1).all()
        assert not here.optimal[..., height:, :].any()
        assert torch.equal(here.goal, part.goal)
        first += len(part)


def test_only_sets_of_one_mechanism_are_joined() -> None:
    with pytest.raises(InputError, match="parts must share a mechanism, got moore, news"):
        Mazes.concatenate([small(), small("moore")])
    with pytest.raises(InputError, match="parts must be at least one set"):
        Mazes.concatenate([])


MAP = np.ones((2, 3, 4), bool)
GOAL = np.zeros((2, 3), np.int64)


@pytest.mark.parametrize(
    ("free", "goal", "message"),
    [
        (MAP[0], GOAL, r"free must be \[N, H, W\] with True or 1 where a cell is open, got bool \[3, 4\]"),
        (MAP[:, :, :0], GOAL, r"free must be \[N, H, W\]"),
        (MAP * 2.0, GOAL, r"free must hold zeros and ones, got \[2.0\]"),
        (MAP, GOAL[:1], r"goal must be whole numbers \[2, 3\] \(orientation, row, column\), got int64 \[1, 3\]"),
        (MAP, GOAL[:, :2], r"goal must be whole numbers \[2, 3\]"),
        (MAP, GOAL * 1.0, r"goal must be whole numbers .* got float64 \[2, 3\]"),
        (MAP, GOAL + np.array([[0], [3]]), r"goal of maze 1 must be in \(1, 3, 4\), got \[3, 3, 3\]"),
        (MAP, GOAL - np.array([[0], [1]]), r"goal of maze 1 must be in \(1, 3, 4\), got \[-1, -1, -1\]"),
        (MAP & np.array([[[False]], [[True]]]), GOAL, r"goal of maze 0 must be an open cell, got the wall \[0, 0\]"),
    ],
)
def test_maps_that_are_none_are_refused(free: Any, goal: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Mazes.from_arrays(free, goal, "news")


# -- labels and the published arrays ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_distributions_over_the_optimal_actions(name: str) -> None:
    mazes = small(name)
    states = (mazes.distances > 0).float()
    assert 0 < states.sum() < states.numel()
    both = [mazes.target(), mazes.target("single", torch.Generator().manual_seed(0))]
    for target in both:
        assert target.dtype == torch.float32
        assert torch.equal((target > 0) & ~mazes.optimal, torch.zeros_like(mazes.optimal))
        torch.testing.assert_close(target.sum(1), states)
    counts = mazes.optimal.sum(1, keepdim=True)
    torch.testing.assert_close(both[0] * counts, mazes.optimal.float())
    assert set(both[1].unique().tolist()) == {0.0, 1.0}


def test_single_labels_are_drawn_uniformly() -> None:
    mazes = Mazes.from_arrays(np.ones((4000, 3, 3)), np.tile([0, 2, 2], (4000, 1)), "news")
    generator = torch.Generator().manual_seed(1)
    share = mazes.target("single", generator)[:, :, 0, 0, 0].mean(0)
    torch.testing.assert_close(share, torch.tensor([0.0, 0.5, 0.0, 0.5]), atol=0.03, rtol=0)
    again = mazes.target("single", torch.Generator().manual_seed(1))
    assert torch.equal(again, mazes.target("single", torch.Generator().manual_seed(1)))
    assert not torch.equal(again, mazes.target("single", generator))


def test_labels_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match="labels must be one of all, single, got 'first'"):
        small().target("first")
    with pytest.raises(InputError, match="generator must be given for labels='single'"):
        small().target("single")


@pytest.mark.parametrize("name", NAMES)
def test_published_arrays_there_and_back(name: str, tmp_path: Path) -> None:
    parts = splits((7, 9), (5, 3, 2), mechanism=name, decimation=(0, 0.5), seed=0)
    generator = torch.Generator().manual_seed(0)
    write_mazes(tmp_path / "mazes.npz", *(part.to_arrays(generator=generator) for part in parts))
    for part, read in zip(parts, read_mazes(tmp_path / "mazes.npz"), strict=True):
        mazes = Mazes.from_goal_maps(read.mazes, read.goal_maps, name)
        assert torch.equal(mazes.free, part.free)
        assert torch.equal(mazes.goal, part.goal)
        policies = torch.from_numpy(read.policies) > 0
        assert (policies.sum(1) == 1).all()
        learnt = (mazes.distances > 0)[:, None].expand_as(policies)
        assert (mazes.optimal | ~policies)[learnt].all()


@pytest.mark.parametrize("name", ["news", "moore"])
def test_every_state_has_the_published_choice(name: str) -> None:
    """By the published rule every state, walls too, takes the neighbour nearest to the goal; ties are drawn."""
    mazes = small(name)
    _, _, shares = mazes.to_arrays("all")
    far = mazes.distances[0].numel()
    for maze, one in enumerate(mazes.free.numpy()):
        steps = mazes.distances[maze, 0].numpy()
        for row, column in np.ndindex(one.shape):
            after = []
            for _, down, right in mazes.mechanism.moves[0]:
                to = row + down, column + right
                to = to if 0 <= to[0] < 3 and 0 <= to[1] < 4 and one[to] else (row, column)
                after.append(far if steps[to] < 0 else int(steps[to]))
            best = np.array(after) == min(after)
            np.testing.assert_allclose(shares[maze, :, 0, row, column], best / best.sum())


def test_goal_maps_that_are_none_are_refused() -> None:
    free, goal_maps, _ = small().to_arrays("all")
    with pytest.raises(InputError, match=r"goal_maps must be \[3, 4, 3, 4\] for diffdrive, got float32 \[3, 1, 3, 4\]"):
        Mazes.from_goal_maps(free, goal_maps, "diffdrive")
    for value in (0.0, 2.0):
        wrong = goal_maps.copy()
        wrong[1, 0, 2, 1] = value
        with pytest.raises(InputError, match="goal_maps must hold one 1 per maze, got another for maze 1"):
            Mazes.from_goal_maps(free, wrong, "news")
    wrong = goal_maps.copy()
    wrong[2, 0, 0, 0] = 1
    with pytest.raises(InputError, match="got another for maze 2"):
        Mazes.from_goal_maps(free, wrong, "news")
