"""The ring against a deque, and policies that come out of the replay exactly as they went in."""

from __future__ import annotations

from collections import Counter, deque
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mindworks.errors import InputError
from mindworks.policies.replay import PolicyReplay, Ring, noise_from_seeds
from mindworks.policies.streams import Streams

FIELDS = {"x": ((2,), torch.float32), "n": ((), torch.int64)}


def numbered(seeds: int, width: int, start: int) -> dict[str, torch.Tensor]:
    """Rows that carry their own number, different in every seed."""
    n = start + torch.arange(width).expand(seeds, width) + 10_000 * torch.arange(seeds).unsqueeze(-1)
    return {"x": torch.stack([n.float(), -n.float()], -1), "n": n}


def sample(replay: PolicyReplay, streams: Streams, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    slots = replay.draw(streams, (batch,))
    return replay.theta(slots), replay.policies.gather("value", slots)


def by_age(ring: Ring, s: int) -> list[int]:
    """What seed s holds, the oldest first."""
    ages = torch.arange(int(ring.size[s])).flip(0).expand(len(ring.size), -1)
    rows, vectors = (ring.data[name][s, ring.slots(ages)[s]] for name in ("n", "x"))
    assert torch.equal(vectors, torch.stack([rows.float(), -rows.float()], -1))
    return rows.tolist()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    capacity=st.integers(1, 9),
    adds=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), max_size=12),
)
def test_the_ring_holds_what_a_deque_per_seed_would(capacity, adds):
    ring, oracle = Ring(2, capacity, FIELDS), [deque(maxlen=capacity) for _ in range(2)]
    number = 0
    for first, second, reload in adds:
        counts = np.minimum([first, second], capacity)
        rows = numbered(2, 9, number)
        number += 9
        ring.add(rows, counts)
        for s, queue in enumerate(oracle):
            queue.extend(rows["n"][s, : counts[s]].tolist())
        if reload:
            saved, ring = ring.state(), Ring(2, capacity, FIELDS)
            ring.load(saved)
        assert ring.size.tolist() == [len(queue) for queue in oracle]
        assert ring.nbytes <= 2 * capacity * (2 * 4 + 8)
        for s, queue in enumerate(oracle):
            assert by_age(ring, s) == list(queue)


def test_more_rows_than_fit_leave_the_newest():
    ring = Ring(1, 4, FIELDS)
    ring.add(numbered(1, 9, 0), np.array([9]))
    assert by_age(ring, 0) == [5, 6, 7, 8]


def test_the_ring_takes_little_memory_until_it_is_used():
    ring = Ring(2, 1_000_000, FIELDS)
    assert ring.nbytes == 0
    ring.add(numbered(2, 5, 0), np.array([5, 3]))
    assert ring.nbytes <= 2 * 10 * (2 * 4 + 8)


def test_noise_is_normal_and_a_function_of_its_seed_alone():
    seeds = torch.tensor([[3, 2**61], [5, 3]])
    noise = noise_from_seeds(seeds, 4000)
    assert noise.shape == (2, 2, 4000)
    assert torch.equal(noise[0, 0], noise[1, 1])
    assert torch.equal(noise_from_seeds(seeds[1], 4000), noise[1])
    assert stats.kstest(noise[0].flatten().numpy(), "norm").pvalue > 1e-3
    assert abs(float(np.corrcoef(noise[:, 0])[0, 1])) < 5 / 4000**0.5


def filled(storage: str, rounds: int = 6, capacity: int = 12, sigma: float = 0.3, seeds: int = 2, population: int = 4):
    """A replay told `rounds` proposals, seed 1 only every other one, and what went in per seed, oldest first."""
    replay = PolicyReplay(seeds, 7, population, capacity, sigma, storage)
    told: list[list[tuple[torch.Tensor, float, int]]] = [[] for _ in range(seeds)]
    generator = torch.Generator().manual_seed(0)
    for t in range(rounds):
        base = torch.randn(seeds, 7, generator=generator)
        noise_seeds = torch.randint(2**62, (seeds, population), generator=generator)
        theta = replay.propose(base, noise_seeds)
        values = torch.arange(population).double() + 100 * t + 10_000 * torch.arange(seeds).unsqueeze(-1)
        lengths = 1 + torch.arange(population).expand(seeds, population)
        active = np.array([s == 0 or t % 2 == 0 for s in range(seeds)])
        replay.add(theta, values, lengths, active, base, noise_seeds)
        for s in np.flatnonzero(active):
            told[s] += [(theta[s, n], float(values[s, n]), n + 1) for n in range(population)]
    kept = replay.generations * population
    return replay, [rows[-kept:] for rows in told]


@pytest.mark.parametrize("storage", ["float32", "float16", "seed"])
@pytest.mark.parametrize("capacity", [12, 14, 100])
def test_what_was_proposed_is_what_comes_back_bit_for_bit(storage, capacity):
    replay, told = filled(storage, capacity=capacity)
    assert replay.size.tolist() == [len(rows) for rows in told]
    for s, rows in enumerate(told):
        ages = torch.arange(len(rows)).flip(0).expand(2, -1)
        slots = replay.policies.slots(torch.minimum(ages, torch.from_numpy(replay.size - 1).unsqueeze(-1)))
        assert torch.equal(replay.theta(slots)[s], torch.stack([theta for theta, _, _ in rows]))
        assert replay.policies.gather("value", slots)[s].tolist() == [value for _, value, _ in rows]
        assert sorted(replay.values(s).tolist()) == sorted(value for _, value, _ in rows)
        assert int(replay.lengths(s).sum()) == sum(length for _, _, length in rows)


@pytest.mark.parametrize("storage", ["float32", "float16", "seed"])
def test_proposals_lie_around_their_base_with_the_noise_of_their_seeds(storage):
    replay = PolicyReplay(2, 500, 3, 30, 0.3, storage)
    base = torch.randn(2, 500, generator=torch.Generator().manual_seed(0))
    noise_seeds = torch.arange(6).reshape(2, 3)
    theta = replay.propose(base, noise_seeds)
    exact = base.unsqueeze(1) + 0.3 * noise_from_seeds(noise_seeds, 500)
    assert theta.dtype == torch.float32
    torch.testing.assert_close(theta, exact, rtol=0, atol=0 if storage == "float32" else 4e-3)
    assert torch.equal(replay.propose(base[1:], noise_seeds[1:])[0], theta[1])


def test_sampling_is_uniform_over_what_is_stored():
    replay, told = filled("float32")
    theta, values = sample(replay, Streams([0, 1]), 6000)
    assert theta.shape == (2, 6000, 7)
    for s, rows in enumerate(told):
        counts = Counter(values[s].tolist())
        assert set(counts) == {value for _, value, _ in rows}
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3
        stored = {value: vector for vector, value, _ in rows}
        assert all(torch.equal(theta[s, i], stored[float(values[s, i])]) for i in range(50))


def test_seeds_are_sampled_independently_of_their_company():
    replay, _ = filled("seed")
    alone, _ = filled("seed", seeds=1)
    together_theta, together_values = sample(replay, Streams([4, 5]), 20)
    assert together_values.shape == (2, 20)
    assert torch.equal(sample(alone, Streams([4]), 20)[1][0], together_values[0])
    again_theta, _ = sample(replay, Streams([4, 5]), 20)
    assert torch.equal(again_theta, together_theta)


@pytest.mark.parametrize("storage", ["float32", "float16", "seed"])
def test_a_saved_replay_goes_on_bit_for_bit(storage):
    replay, _ = filled(storage)
    fresh = PolicyReplay(2, 7, 4, 12, 0.3, storage)
    fresh.load(deepcopy(replay.state()))
    base, noise_seeds = torch.randn(2, 7, generator=torch.Generator().manual_seed(9)), torch.arange(8).reshape(2, 4)
    for store in (replay, fresh):
        theta = store.propose(base, noise_seeds)
        store.add(theta, torch.zeros(2, 4).double(), torch.ones(2, 4), np.array([True, False]), base, noise_seeds)
    for ours, theirs in zip(sample(replay, Streams([0, 1]), 50), sample(fresh, Streams([0, 1]), 50), strict=True):
        assert torch.equal(ours, theirs)
    assert fresh.size.tolist() == replay.size.tolist()


def test_ten_thousand_deep_policies_fit_in_200_megabytes():
    parameters, population, generations = 68_610, 8, 1250
    replay = PolicyReplay(1, parameters, population, population * generations, 0.05, "seed")
    values, lengths = torch.zeros(1, population).double(), torch.ones(1, population).long()
    base, unused = torch.zeros(1, parameters), torch.zeros(1, population, 0)
    for t in range(generations + 1):
        noise_seeds = torch.arange(population).unsqueeze(0) + population * t
        replay.add(unused, values, lengths, np.array([True]), base, noise_seeds)
    assert replay.size.tolist() == [10_000]
    assert replay.nbytes < 200e6
    assert replay.theta(torch.tensor([[9_999]])).shape == (1, 1, parameters)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: Ring(1, 0, FIELDS), "capacity.*0"),
        (lambda: PolicyReplay(1, 3, 4, 3, 0.1, "float32"), "capacity.*4.*3"),
        (lambda: PolicyReplay(1, 3, 4, 8, -0.1, "float32"), "sigma"),
        (lambda: PolicyReplay(1, 3, 4, 8, 0.1, "int8"), "storage.*'int8'"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names):
    with pytest.raises(InputError, match=names):
        make()


def test_policies_of_unknown_noise_do_not_fit_in_seeds():
    replay = PolicyReplay(1, 3, 2, 8, 0.1, "seed")
    with pytest.raises(InputError, match="storage='seed'"):
        replay.add(torch.zeros(1, 2, 3), torch.zeros(1, 2), torch.ones(1, 2), np.array([True]))
    assert replay.size.tolist() == [0]
