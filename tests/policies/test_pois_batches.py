"""Which batches POIS judges by: promises kept and broken, memory, seeds beside each other, and resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pois_helpers import ParameterCase, cartpole, earn, finish, told_by_hand
from policy_helpers import assert_same

from mindworks.lab import checkpoint
from mindworks.policies.pois import POIS

MODES = pytest.mark.parametrize("mode", ["parameter", "action"])


def test_a_distribution_that_breaks_its_promise_is_given_up_and_the_last_good_one_plays_again() -> None:
    search = told_by_hand(adaptive=3)
    start = search.rho.clone()
    earn(search)  # batch 1
    sizes, played = [], []
    for bonus in ([-1e3, 1e3], [0.0, 2e3], [-1e3, 3e3], [0.0, 4e3], [-1e3, 5e3]):
        played.append(search.rho.clone())
        earn(search, bonus)
        sizes.append(search._surrogate().returns.size.tolist())
        assert search.metrics["rejected"] == [bonus[0] < 0 and len(sizes) < 5, False]
    # the first seed plays its start at batches 1, 3 and 5, and something else in between
    assert [bool((rho[0] == start[0]).all()) for rho in played] == [False, True, False, True, False]
    assert [size[0] for size in sizes] == [6, 12, 12, 18, 6]
    # after three batches at one distribution the next is accepted, however little it earned
    assert torch.equal(search.accepted, played[-1])
    assert [size[1] for size in sizes] == [6] * 5
    assert len({tuple(rho[1].tolist()) for rho in played}) == 5


def test_batches_of_one_distribution_speak_together() -> None:
    search = told_by_hand(adaptive=2, delta=0.2)
    start = search.rho.clone()
    first = earn(search)[1]
    earn(search, [-1e3, 1e3])
    again = earn(search, [0.0, 2e3])[1]
    bound = search.bound(start)
    together = torch.cat([first[0], again[0]])
    assert bound.estimate[0, 0].item() == pytest.approx(together.mean().item(), rel=1e-12)
    assert bound.penalty[0, 0].item() == pytest.approx(2 * together.abs().max().item() / 12**0.5, rel=1e-12)
    assert bound.ess[0, 0].item() == pytest.approx(12, rel=1e-12)
    assert search.metrics["promised"][0] == -torch.inf


def test_with_one_try_every_distribution_is_accepted() -> None:
    search = told_by_hand(adaptive=1)
    for bonus in (0.0, -1e3, -2e3):
        played = search.rho.clone()
        earn(search, bonus)
        assert search.metrics["rejected"] == [False, False]
        assert torch.equal(search.accepted, played)


@pytest.mark.parametrize("memory", [1, 3])
def test_the_last_distributions_are_remembered_and_weigh_equally(memory: int) -> None:
    search = told_by_hand(memory=memory, delta=0.4)
    behaviors, thetas, returns = [], [], []
    for _ in range(5):
        behaviors.append(search.rho.clone())
        theta, values = earn(search)
        thetas.append(theta.double())
        returns.append(values)
    case = ParameterCase(3, memory, delta=0.4)
    case.valid[:] = True
    case.theta, case.behaviors = (torch.stack(rows[-memory:], 1) for rows in (thetas, behaviors))
    case.values, case.rho = torch.cat(returns[-memory:], 1), search.rho
    assert search._surrogate().returns.size.tolist() == [6 * memory] * 2
    bound = search.bound(search.rho)
    for s in range(2):
        criterion = {"estimator": "self-normalized", "penalty": "divergence", "scale": "max", "center": False}
        expected = case.by_hand(s, range(3), **criterion)
        for name, value in expected.items():
            assert getattr(bound, name)[s, 0].item() == pytest.approx(value, rel=1e-9), name


def test_old_batches_make_room_for_those_of_the_newest_distribution() -> None:
    """Two distributions, a and b, each played twice, and room for three batches: b keeps both of its own."""
    search = told_by_hand(1, memory=2, adaptive=2)
    used = []
    for bonus in (0.0, -1e3, 0.0, 0.0, -1e3, 0.0):
        earn(search, bonus)
        used.append([batch["rho"] for batch in search.batches if batch["valid"][0]])
    assert [len(rhos) for rhos in used] == [1, 1, 2, 3, 3, 3]
    a, b = used[0][0], search.accepted
    assert not torch.equal(a, b)
    assert [torch.equal(rho, b) for rho in used[-1]] == [False, True, True]
    assert torch.equal(used[-1][0], a)


@pytest.mark.parametrize(("memory", "adaptive"), [(1, 3), (2, 3), (2, 1)])
def test_which_batches_a_seed_uses_does_not_depend_on_the_others(memory: int, adaptive: int) -> None:
    """Seeds that keep and give up distributions at different times hold different batches at once."""
    bonuses = [[0, 0, 0], [-1e3, 1e3, 1e3], [0, -1e4, 2e3], [-1e3, 1e3, -1e4], [0, 2e3, 2e3], [-1e3, -1e4, 3e3]]
    together = told_by_hand(3, memory=memory, adaptive=adaptive)
    alone = []
    for seed in range(3):
        policy, settings = together.policy, together.config
        alone.append(POIS(policy, settings, [seed]))
    for bonus in bonuses:
        earn(together, [float(value) for value in bonus])
        for s, one in enumerate(alone):
            earn(one, [float(bonus[s])])
            size = together._surrogate().returns.size[s].item()
            assert size == one._surrogate().returns.size.item()
            assert size <= 6 * (memory + adaptive - 1)
            torch.testing.assert_close(together.rho[s], one.rho[0], rtol=1e-9, atol=1e-9)
            assert together.metrics["rejected"][s] == one.metrics["rejected"][0]
    if adaptive > 1:
        assert any(together.tries != 1)


@MODES
@pytest.mark.parametrize("changes", [{}, {"memory": 2, "adaptive": 3}], ids=["one batch", "several"])
def test_seeds_side_by_side_equal_each_alone(mode: str, changes: dict[str, Any]) -> None:
    """Episodes are padded to the longest of all seeds: sums then round otherwise, and a climb makes that grow."""
    tolerance = 1e-12 if mode == "parameter" else 1e-6
    together = finish(cartpole(mode, [3, 5, 8], **changes))
    for s, seed in enumerate([3, 5, 8]):
        alone = finish(cartpole(mode, [seed], **changes))
        assert alone.curves[0] == together.curves[s]
        torch.testing.assert_close(alone.search.rho[0], together.search.rho[s], rtol=tolerance, atol=tolerance)
    assert len({tuple(curve) for curve in together.curves}) == 3


@MODES
def test_every_seed_can_have_a_delta_of_its_own(mode: str) -> None:
    tolerance = 1e-12 if mode == "parameter" else 1e-6  # as above
    deltas = (0.2, 0.99, 0.2)
    together = finish(cartpole(mode, [3, 3, 5], delta=deltas))
    for s, (seed, delta) in enumerate(zip([3, 3, 5], deltas, strict=True)):
        alone = finish(cartpole(mode, [seed], delta=delta))
        assert alone.curves[0] == together.curves[s]
        torch.testing.assert_close(alone.search.rho[0], together.search.rho[s], rtol=tolerance, atol=tolerance)
    assert not torch.equal(together.search.rho[0], together.search.rho[1])  # the same draws, another delta


@MODES
def test_a_search_resumes_bit_for_bit(mode: str, tmp_path: Path) -> None:
    changes = {"memory": 2, "adaptive": 3, "batches": 6, "delta": 0.9, "natural": True}
    whole = cartpole(mode, [0, 1], **changes)
    for _ in range(3):
        whole.advance()
    one = whole.search
    one.rho[0], one.promised[0], one.tries[0] = one.accepted[0] + 0.1, torch.inf, 1  # the fourth batch will be given up
    checkpoint.save(tmp_path, whole.state())
    resumed = cartpole(mode, [0, 1], **changes)
    resumed.load(checkpoint.load(tmp_path))
    assert_same(resumed.state(), whole.state())
    assert_same(finish(resumed).state(), finish(whole).state())
    assert whole.history[3]["rejected"][0]
    assert len(whole.search.batches) > 2
