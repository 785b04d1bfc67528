"""Line searches and climbs on functions whose best step is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mindworks.policies.line_search import SEARCHES, TOLERANCE, Climb, climb

Gain = Callable[[Tensor], Tensor]
BOTH = pytest.mark.parametrize("name", sorted(SEARCHES))
ONE = torch.ones(1, 1, dtype=torch.bool)


def alone(name: str, gain: Gain, evaluations: int = 40) -> tuple[float, float, int]:
    length, gained, used = SEARCHES[name](gain, ONE, evaluations)
    return length.item(), gained.item(), int(used)


def parabola(vertex: float | Tensor) -> Gain:
    """Slope 1 at 0, as a step along the gradient promises, and the top at `vertex`."""
    return lambda epsilon: epsilon - epsilon.square() / (2 * vertex)


def within(radius: float | Tensor, inside: Gain, beyond: float = -math.inf) -> Gain:
    return lambda epsilon: torch.where(epsilon <= radius, inside(epsilon), beyond)


# -- one search --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("vertex", "used"), [(0.3, 3), (0.7, 3), (1.0, 2), (1.9, 3), (5.0, 5), (40.0, 8)])
def test_the_parabolic_search_finds_the_vertex_of_a_parabola(vertex: float, used: int) -> None:
    """By hand: 1, the vertex, the vertex again; doubled as long as the gain is more than 3/4 of the length."""
    length, gained, tried = alone("parabolic", parabola(vertex))
    assert length == pytest.approx(vertex, rel=1e-12)
    assert gained == pytest.approx(vertex / 2, rel=1e-12)
    assert tried == used


@pytest.mark.parametrize("vertex", [0.7, 5.0, 40.0])
def test_the_binary_search_stops_where_doubling_and_halving_no_longer_gain(vertex: float) -> None:
    """It compares values and knows no curvature: the end is at least as good as every length that it tried."""
    seen: list[float] = []

    def gain(epsilon: Tensor) -> Tensor:
        seen.append(epsilon.item())
        return parabola(vertex)(epsilon)

    length, gained, used = alone("binary", gain)
    tried = [x - x * x / (2 * vertex) for x in seen]
    assert gained == pytest.approx(max(tried), rel=1e-12)
    assert gained == pytest.approx(length - length**2 / (2 * vertex), rel=1e-12)
    assert gained > 0.75 * vertex / 2
    assert used == len(seen)


@BOTH
@pytest.mark.parametrize("radius", [0.7, 0.1, 1e-3])
def test_a_search_backs_off_from_where_the_function_is_not_defined(name: str, radius: float) -> None:
    length, gained, _ = alone(name, within(radius, lambda epsilon: epsilon))
    assert radius / 4 < length <= radius
    assert gained == length


def test_the_first_try_that_is_defined_counts_by_hand() -> None:
    """1, 1/4 and 1/16 on the way in; 1/8 is out again, and the search is over."""
    seen: list[float] = []

    def gain(epsilon: Tensor) -> Tensor:
        seen.append(epsilon.item())
        return within(0.1, lambda e: e)(epsilon)

    assert alone("parabolic", gain) == (1 / 16, 1 / 16, 4)
    assert seen == [1, 1 / 4, 1 / 16, 1 / 8]


@pytest.mark.parametrize("radius", [0.3, 1.0, 2.9, 700.0])
def test_the_binary_search_closes_in_on_the_boundary(radius: float) -> None:
    length, gained, used = alone("binary", within(radius, lambda epsilon: epsilon), 60)
    assert length == pytest.approx(radius, rel=2e-6)
    assert length <= radius
    assert gained == length
    assert used < 60


@BOTH
@pytest.mark.parametrize("slope", [-1.0, 0.0])
def test_where_nothing_gains_the_step_has_length_0(name: str, slope: float) -> None:
    length, gained, used = alone(name, lambda epsilon: slope * epsilon, 25)
    assert (length, gained) == (0.0, 0.0)
    assert used <= 25


def test_the_parabolic_search_ends_where_a_try_gains_no_more_than_the_tolerance() -> None:
    gains = iter([0.5, 0.5 + 2 * TOLERANCE, 0.5 + 2.5 * TOLERANCE, 9.0])
    _, gained, used = alone("parabolic", lambda epsilon: torch.full_like(epsilon, next(gains)))
    assert (gained, used) == (0.5 + 2 * TOLERANCE, 3)


@BOTH
def test_a_first_try_that_loses_a_million_does_not_end_the_search(name: str) -> None:
    """Weights are exponentials: one step too far the vertex is as good as 0, and gains less than the tolerance."""
    length, gained, _ = alone(name, lambda epsilon: epsilon - 1e7 * epsilon**8)
    assert 0.02 < length < 0.1
    assert gained > 0.04  # of at most 0.065


@BOTH
def test_a_function_that_is_nowhere_defined_gives_length_0(name: str) -> None:
    assert alone(name, lambda epsilon: torch.full_like(epsilon, -math.inf), 7) == (0.0, 0.0, 7)


@BOTH
@pytest.mark.parametrize("evaluations", [1, 2, 7])
def test_growing_gains_double_the_step_until_the_tries_are_used_up(name: str, evaluations: int) -> None:
    calls = 0

    def gain(epsilon: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return epsilon

    length = 2.0 ** (evaluations - 1)
    assert alone(name, gain, evaluations) == (length, length, evaluations)
    assert calls == evaluations


@BOTH
def test_searches_side_by_side_equal_each_alone(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    vertex = (2 * torch.randn(4, 3, generator=generator, dtype=torch.float64)).exp()
    radius = (torch.randn(4, 3, generator=generator, dtype=torch.float64)).exp()
    active = torch.rand(4, 3, generator=generator) < 0.7
    active[3] = False
    length, gained, used = SEARCHES[name](within(radius, parabola(vertex)), active, 30)
    for s in range(4):
        tries = [0]
        for g in range(3):
            if active[s, g]:
                one = alone(name, within(radius[s, g], parabola(vertex[s, g])), 30)
                assert (length[s, g].item(), gained[s, g].item()) == one[:2]
                tries.append(one[2])
            else:
                assert (length[s, g], gained[s, g]) == (0, 0)
        assert used[s] == max(tries)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), evaluations=st.integers(1, 12), name=st.sampled_from(sorted(SEARCHES)))
def test_the_answer_is_a_try_or_0_and_never_a_loss(seed: int, evaluations: int, name: str) -> None:
    """On noise: nothing is known of the function but what was asked."""
    generator = torch.Generator().manual_seed(seed)
    asked: dict[float, float] = {0.0: 0.0}

    def gain(epsilon: Tensor) -> Tensor:
        value = torch.randn(1, 1, generator=generator, dtype=torch.float64)
        value = torch.where(torch.rand(1, 1, generator=generator) < 0.3, -math.inf, value)
        asked[epsilon.item()] = value.item()
        return value

    length, gained, used = alone(name, gain, evaluations)
    assert asked[length] == gained >= 0
    assert 1 <= used <= evaluations


# -- climbs ------------------------------------------------------------------------------------------------------------


class Bowl:
    """-(1/2) sum a (rho - top)^2 per group, `natural` exact, undefined (`beyond`) further than `radius` from 0."""

    def __init__(
        self, top: Tensor, curvature: Tensor, group: list[int], radius: float = math.inf, beyond: float = -math.inf
    ) -> None:
        self.top, self.curvature, self.radius, self.beyond = top, curvature, radius, beyond
        self.group, self.calls = torch.tensor(group), 0

    def value(self, rho: Tensor) -> Tensor:
        self.calls += not torch.is_grad_enabled()
        groups = int(self.group.max()) + 1
        near = torch.zeros(len(rho), groups, dtype=rho.dtype).index_add(1, self.group, rho.square())
        loss = 0.5 * self.curvature * (rho - self.top).square()
        total = torch.zeros(len(rho), groups, dtype=rho.dtype).index_add(1, self.group, loss)
        return torch.where(near <= self.radius**2, -total, self.beyond)

    def natural(self, rho: Tensor, gradient: Tensor) -> Tensor:
        return gradient / self.curvature


def bowl(seeds: int = 3, **fields) -> tuple[Bowl, Tensor]:
    """Three seeds of two groups with two parameters each, and a start near 0."""
    generator = torch.Generator().manual_seed(1)
    top = 3 * torch.randn(3, 4, generator=generator, dtype=torch.float64)
    curvature = torch.randn(3, 4, generator=generator, dtype=torch.float64).exp()
    start = 0.1 * torch.randn(3, 4, generator=generator, dtype=torch.float64)
    return Bowl(top[:seeds], curvature[:seeds], [0, 1, 1, 0], **fields), start[:seeds]


def test_one_natural_step_reaches_the_top_of_a_bowl() -> None:
    objective, start = bowl()
    before = start.clone()
    end = climb(objective, start, steps=10, evaluations=30)
    torch.testing.assert_close(end.rho, objective.top, rtol=0, atol=1e-10)
    torch.testing.assert_close(end.gain, -objective.value(start), rtol=1e-12, atol=0)
    assert end.steps.tolist() == [1, 1, 1]
    assert torch.equal(start, before)


def test_the_gradient_itself_takes_more_steps_than_the_natural_one() -> None:
    objective, start = bowl()
    plain = climb(objective, start, steps=40, evaluations=30, natural=False)
    torch.testing.assert_close(plain.rho, objective.top, rtol=0, atol=0.05)
    assert (plain.steps > 1).all()
    first = climb(objective, start, steps=1, evaluations=30, natural=False)
    slope = objective.curvature * (objective.top - start)
    ratio = (first.rho - start) / slope
    for columns in ([0, 3], [1, 2]):  # within a group the step is along the gradient, and as long as is best
        torch.testing.assert_close(ratio[:, columns[0]], ratio[:, columns[1]], rtol=1e-9, atol=0)
        along = slope[:, columns]
        best = along.square().sum(1) / (objective.curvature[:, columns] * along.square()).sum(1)
        torch.testing.assert_close(ratio[:, columns[0]], best, rtol=1e-9, atol=0)


@pytest.mark.parametrize("natural", [True, False])
@pytest.mark.parametrize("search", sorted(SEARCHES))
@pytest.mark.parametrize("radius", [math.inf, 0.8])
def test_seeds_and_groups_side_by_side_climb_as_each_alone(natural: bool, search, radius: float) -> None:
    objective, start = bowl(radius=radius)
    together = climb(objective, start, steps=3, evaluations=12, natural=natural, search=search)
    assert (together.gain >= 0).all()
    for s in range(3):
        for g, columns in enumerate(([0, 3], [1, 2])):
            one = Bowl(objective.top[s : s + 1, columns], objective.curvature[s : s + 1, columns], [0, 0], radius)
            single = climb(one, start[s : s + 1, columns], steps=3, evaluations=12, natural=natural, search=search)
            torch.testing.assert_close(together.rho[s, columns], single.rho[0], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(together.gain[s, g], single.gain[0, 0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("beyond", [-math.inf, math.nan, math.inf])
@pytest.mark.parametrize("search", sorted(SEARCHES))
def test_a_climb_stays_where_the_objective_is_a_number(search, beyond: float) -> None:
    objective, start = bowl(radius=0.5, beyond=beyond)
    end = climb(objective, start, steps=4, evaluations=30, search=search)
    value = objective.value(end.rho)
    assert torch.isfinite(value).all()
    assert (end.gain > 0).all()
    torch.testing.assert_close(value - objective.value(start), end.gain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("outside", [-math.inf, math.nan])
def test_a_seed_that_starts_out_of_bounds_stays_and_the_others_climb(outside: float) -> None:
    objective, start = bowl(radius=50.0, beyond=outside)
    start[1] = 100.0
    end = climb(objective, start, steps=5, evaluations=30)
    assert torch.equal(end.rho[1], start[1])
    torch.testing.assert_close(end.rho[[0, 2]], objective.top[[0, 2]], rtol=0, atol=1e-10)
    assert end.steps.tolist() == [1, 0, 1]


@pytest.mark.parametrize("natural", [True, False])
@pytest.mark.parametrize("search", sorted(SEARCHES))
def test_steps_and_evaluations_are_counted_and_kept_within_bounds(search, natural: bool) -> None:
    objective, start = bowl()
    end = climb(objective, start, steps=3, evaluations=5, natural=natural, search=search)
    assert (end.steps <= 3).all()
    assert (end.evaluations <= 1 + 3 * 5).all()
    assert objective.calls <= 1 + 3 * (5 + 1)  # the start, the tries, and the value after every step


def test_counters_by_hand() -> None:
    """A parabola's vertex takes three tries; a seed at the top takes no step."""
    objective, start = bowl(seeds=2)
    objective.curvature[:] = 1.0
    objective.top[0], objective.top[1] = start[0] + torch.tensor([0.6, 0.0, 0.6, 0.0]), start[1]
    end = climb(objective, start, steps=9, evaluations=30)
    assert end.steps.tolist() == [1, 0]
    assert end.evaluations.tolist() == [1 + 3, 1]
    assert end.gain[0].tolist() == pytest.approx([0.18, 0.18])
    assert end.gain[1].tolist() == [0, 0]


class Waves:
    """A wavy function of one group that is undefined in places."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.frequency, self.phase = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
        self.group = torch.zeros(3, dtype=torch.int64)

    def value(self, rho: Tensor) -> Tensor:
        waves = torch.sin(3 * rho.unsqueeze(1) * self.frequency + self.phase).sum((1, 2))
        hole = torch.sin(5 * rho).sum(1) > 2
        return torch.where(hole, math.nan, waves).unsqueeze(1)

    def natural(self, rho: Tensor, gradient: Tensor) -> Tensor:
        return gradient * torch.tensor([1.0, 4.0, 0.1])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 4), natural=st.booleans())
def test_a_climb_never_ends_below_its_start(seed: int, steps: int, natural: bool) -> None:
    objective = Waves(seed)
    start = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    before = objective.value(start)
    for search in SEARCHES:
        end = climb(objective, start, steps=steps, evaluations=6, natural=natural, search=search)
        defined = torch.isfinite(before)
        after = objective.value(end.rho)
        assert (after[defined] >= before[defined]).all()
        torch.testing.assert_close((after - before)[defined], end.gain[defined], rtol=0, atol=1e-12)
        moved = (end.rho != start).any(1)
        assert torch.equal(moved, end.steps > 0)
        assert (end.gain[moved] > TOLERANCE).all()


def test_a_slope_too_small_to_gain_ends_the_climb() -> None:
    objective, start = bowl(seeds=1)
    objective.top[:], objective.curvature[:] = start + 0.9 * TOLERANCE, 1.0
    end = climb(objective, start, steps=5, evaluations=10)
    assert torch.equal(end.rho, start)
    assert isinstance(end, Climb)
    assert (end.steps.item(), end.gain.abs().max().item()) == (0, 0.0)
