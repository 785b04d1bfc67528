"""How often a policy is drawn by its age and by its value: frequencies against the formulas, exact where possible."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from policy_helpers import learner
from scipy import stats

from mindworks.policies.replay import PolicyReplay, Ring
from mindworks.policies.streams import Streams

DRAWS = 40_000
FIELDS = {"n": ((), torch.int64)}


def ring_of(told: int, capacity: int, seeds: int = 1) -> Ring:
    """A ring told the numbers 0, 1, ... one by one."""
    ring = Ring(seeds, capacity, FIELDS)
    for n in range(told):
        ring.add({"n": torch.full((seeds, 1), n)}, np.full(seeds, 1))
    return ring


def ages(ring: Ring, recency: float, newest: int | None = None, seed: int = 0, draws: int = DRAWS) -> np.ndarray:
    """Ages 0, 1, ... of what the only seed draws, read off the numbers that were told."""
    count = int(ring.size[0]) if newest is None else newest
    slots = ring.draw(Streams([seed]), (draws,), np.array([count]), recency)
    return int(ring.gather("n", ring.slots(torch.zeros(1, 1, dtype=torch.int64)))) - ring.gather("n", slots)[0].numpy()


def replay_of(values: list[list[float]], storage: str = "float32", recency: float = 0.0) -> PolicyReplay:
    """A replay of populations of two, whose seeds were told `values[s]`; policy n is all n."""
    replay = PolicyReplay(len(values), 3, 2, 1000, 0.1, storage, recency)
    for s, row in enumerate(values):
        active = np.arange(len(values)) == s
        for n in range(0, len(row), 2):
            theta = torch.tensor([float(n), n + 1.0]).view(1, 2, 1).expand(len(values), 2, 3)
            told = torch.tensor(row[n : n + 2], dtype=torch.float64).expand(len(values), 2)
            lengths = torch.ones(len(values), 2, dtype=torch.int64)
            base, noise = torch.full((len(values), 3), float(n)), torch.tensor([n, n + 1]).expand(len(values), 2)
            replay.add(theta, told, lengths, active, base, noise)
    return replay


def buckets(replay: PolicyReplay, count: int, shape: tuple[int, ...] = (DRAWS,), seed: int = 0) -> torch.Tensor:
    streams = Streams(list(range(seed, seed + len(replay.size))))
    return replay.draw_buckets(streams, shape, count)


# -- by age -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recency", [0.0, 0.5, 1.0, 1.1, 3.0])
@pytest.mark.parametrize(
    ("told", "capacity"),
    [(8, 16), (16, 16), (21, 16), (53, 16)],
    ids=["half full", "full", "wrapped around", "wrapped around often"],
)
def test_an_age_is_drawn_in_proportion_to_a_power_of_it(recency, told, capacity):
    held = min(told, capacity)
    counts = np.bincount(ages(ring_of(told, capacity), recency), minlength=held)
    weights = np.arange(1, held + 1) ** -recency
    assert len(counts) == held
    assert stats.chisquare(counts, DRAWS * weights / weights.sum()).pvalue > 1e-3


def test_only_the_newest_that_are_asked_for_are_drawn_and_by_their_own_weights():
    counts = np.bincount(ages(ring_of(21, 16), 1.1, newest=5), minlength=5)
    weights = np.arange(1, 6) ** -1.1
    assert len(counts) == 5
    assert stats.chisquare(counts, DRAWS * weights / weights.sum()).pvalue > 1e-3


@pytest.mark.parametrize("told", [1, 8, 21])
def test_no_recency_draws_the_same_numbers_as_torchs_uniform_integers(told):
    ring, streams, twin = ring_of(told, 16, seeds=2), Streams([3, 4]), Streams([3, 4])
    ours = ring.draw(streams, (5, 7), ring.size)
    held = min(told, 16)
    expected = torch.stack([torch.randint(held, (5, 7), generator=generator) for generator in twin.torch])
    assert torch.equal(ours, (told - 1 - expected) % 16)
    for one, other in zip(streams.torch, twin.torch, strict=True):
        assert torch.equal(one.get_state(), other.get_state())


@pytest.mark.parametrize("recency", [60.0, 2000.0, float("inf")])
def test_a_large_recency_draws_the_newest_alone(recency):
    assert (ages(ring_of(21, 16), recency, draws=1000) == 0).all()


@pytest.mark.parametrize("recency", [0.0, 1.1, 50.0])
def test_the_only_row_is_always_drawn(recency):
    assert (ages(ring_of(1, 16), recency, draws=100) == 0).all()
    assert (ages(ring_of(3, 1), recency, draws=100) == 0).all()


def test_one_ring_draws_by_whatever_recency_it_is_asked_for():
    ring = ring_of(21, 16)
    first, other, again = (ages(ring, recency, draws=200) for recency in (1.0, 3.0, 1.0))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(other, ages(ring_of(21, 16), 3.0, draws=200))
    assert other.mean() < first.mean()


@pytest.mark.parametrize("recency", [0.0, 1.1])
def test_a_seed_that_draws_nothing_keeps_its_generator_and_the_others_their_numbers(recency):
    ring, streams = ring_of(21, 16, seeds=3), Streams([0, 1, 2])
    before = [generator.get_state() for generator in streams.torch]
    slots = ring.draw(streams, (50,), np.array([16, 0, 5]), recency)
    assert torch.equal(streams.torch[1].get_state(), before[1])
    assert (slots[1] == (21 - 1) % 16).all()
    for s, newest in ((0, 16), (2, 5)):
        assert not torch.equal(streams.torch[s].get_state(), before[s])
        alone = ring_of(21, 16).draw(Streams([s]), (50,), np.array([newest]), recency)
        assert torch.equal(slots[s], alone[0])


@pytest.mark.parametrize("storage", ["float32", "seed"])
def test_a_replay_draws_policies_by_its_recency_and_nothing_for_inactive_seeds(storage):
    replay = replay_of([list(range(40)), list(range(40))], storage, recency=1.1)
    streams = Streams([0, 1])
    before = streams.torch[1].get_state()
    slots = replay.draw(streams, (DRAWS,), np.array([True, False]))
    assert torch.equal(streams.torch[1].get_state(), before)
    values = replay.policies.gather("value", slots)[0].long()
    weights = np.arange(1, 41) ** -1.1
    assert stats.chisquare(np.bincount(39 - values, minlength=40), DRAWS * weights / weights.sum()).pvalue > 1e-3


def test_a_saved_ring_goes_on_drawing_bit_for_bit():
    ring, fresh = ring_of(21, 16), Ring(1, 16, FIELDS)
    fresh.load(ring.state())
    np.testing.assert_array_equal(ages(ring, 1.1, draws=100), ages(fresh, 1.1, draws=100))


def test_a_learner_hands_its_recency_to_its_replay():
    seen = []
    for recency in (0.0, 30.0):
        one = learner("pssvf", seeds=[0], recency=recency)
        one.replay.add(torch.zeros(1, 50, 2), torch.arange(50.0).view(1, 50), torch.ones(1, 50), np.array([True]))
        seen.append(one.replay.policies.gather("value", one._draw((200,)))[0])
    assert seen[0].unique().numel() > 30
    assert (seen[1] == 49).all()


# -- by value ---------------------------------------------------------------------------------------------------------

# of ten ranges of [0, 10] six are empty; the others hold 20, 1, 3 and 2 values, the greatest among the last
SKEWED = [0.5 + 0.01 * n for n in range(19)] + [0.0, 3.5, 7.1, 7.2, 7.3, 9.5, 10.0]


def test_every_range_that_is_not_empty_is_drawn_in_equal_shares_and_uniformly_within():
    replay = replay_of([SKEWED])
    slots = buckets(replay, 10)
    counts = torch.bincount(slots[0], minlength=len(SKEWED)).numpy()
    sizes = np.array([20] * 20 + [1] + [3] * 3 + [2] * 2)
    assert len(counts) == len(SKEWED)
    assert stats.chisquare(counts, DRAWS / 4 / sizes).pvalue > 1e-3
    assert replay.policies.gather("value", slots).tolist() == [[SKEWED[slot] for slot in slots[0]]]


def test_ranges_lie_between_the_least_and_the_greatest_value_held():
    shifted = replay_of([[1000 - 7 * value for value in SKEWED]])
    counts = torch.bincount(buckets(shifted, 10)[0], minlength=len(SKEWED))
    shares = np.array([counts[:20].sum(), counts[20], counts[21:24].sum(), counts[24:].sum()])
    assert stats.chisquare(shares).pvalue > 1e-3


def test_one_range_is_uniform_and_more_ranges_than_values_are_too_where_all_differ():
    for count in (1, 1000):
        counts = torch.bincount(buckets(replay_of([[1.0, 2.0, 5.0, 6.0]]), count)[0], minlength=4)
        assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("values", [[3.0, 3.0], [-2.0] * 6, [1e300, -1e300]], ids=["two", "six", "far apart"])
def test_equal_values_are_one_range_and_far_ones_overflow_nothing(values):
    counts = torch.bincount(buckets(replay_of([values]), 10)[0], minlength=len(values))
    assert len(counts) == len(values)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_seeds_have_ranges_of_their_own_and_do_not_know_their_company():
    other = [100.0, 100.0, 100.0, 200.0]
    slots = buckets(replay_of([SKEWED, other]), 10, (30, 40))
    assert slots.shape == (2, 30, 40)
    assert torch.equal(slots[0], buckets(replay_of([SKEWED]), 10, (30, 40))[0])
    assert torch.equal(slots[1], buckets(replay_of([other]), 10, (30, 40), seed=1)[0])
    assert int((slots[1] == 3).sum()) == pytest.approx(600, abs=5 * 300**0.5)


def test_inactive_and_empty_seeds_draw_nothing():
    replay, streams = replay_of([SKEWED, SKEWED, []]), Streams([0, 1, 2])
    before = [generator.get_state() for generator in streams.torch]
    slots = replay.draw_buckets(streams, (20,), 10, np.array([True, False, True]))
    assert not torch.equal(streams.torch[0].get_state(), before[0])
    for s in (1, 2):
        assert torch.equal(streams.torch[s].get_state(), before[s])
        assert (slots[s] == 0).all()


def test_ranges_of_a_ring_that_wrapped_around_forget_what_it_forgot():
    replay = PolicyReplay(1, 1, 1, 4, 0.1, "float32")
    for value in (99.0, 98.0, 1.0, 2.0, 3.0, 4.0):
        told = torch.full((1, 1), value, dtype=torch.float64)
        replay.add(told.float().unsqueeze(-1), told, torch.ones(1, 1), np.array([True]))
    slots = buckets(replay, 4)
    assert torch.equal(replay.theta(slots)[0, :, 0].double(), replay.policies.gather("value", slots)[0])
    counts = torch.bincount(replay.policies.gather("value", slots)[0].long(), minlength=5)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-3


# -- forgetting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["float32", "float16", "seed"])
def test_a_cleared_replay_is_as_good_as_new(storage):
    used, new = (replay_of([values], storage) for values in ([5.0, 6.0, 7.0, 8.0, 9.0, 10.0], []))
    used.clear()
    assert used.size.tolist() == [0]
    assert used.values(0).numel() == used.lengths(0).numel() == 0
    streams = Streams([0])
    before = streams.torch[0].get_state()
    for drawn in (used.draw(streams, (4,)), used.draw_buckets(streams, (4,), 3)):
        assert drawn.tolist() == [[0] * 4]
    assert torch.equal(streams.torch[0].get_state(), before)
    for t in range(3):
        noise = torch.tensor([[2 * t, 2 * t + 1]])
        for replay in (used, new):
            theta = replay.propose(torch.full((1, 3), 0.5 * t), noise)
            base = torch.full((1, 3), 0.5 * t)
            replay.add(theta, torch.tensor([[t, -t]]).double(), torch.ones(1, 2), np.array([True]), base, noise)
    slots = used.draw(Streams([0]), (50,))
    assert torch.equal(slots, new.draw(Streams([0]), (50,)))
    assert torch.equal(used.theta(slots), new.theta(slots))
    assert torch.equal(used.values(0), new.values(0))
    assert used.size.tolist() == [6]
