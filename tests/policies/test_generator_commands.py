"""The returns that are commanded, when policies are tried and when the generator learns, and the noise on top."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from generator_helpers import HIGH, LOW, maker, practise, tell, watched
from scipy import stats

from mindworks.policies import GoGePo

BOTH = np.array([True, True])


# -- when policies are tried -------------------------------------------------------------------------------------------


def commanded(one: GoGePo, times: int) -> torch.Tensor:
    """The commands `[S, times, N]` of that many generations that are asked for and not told."""
    seen = watched(one)
    for _ in range(times):
        one.ask()
    return torch.stack(seen, 1)


@pytest.mark.parametrize(("explore", "exploring"), [(0.0, 0), (0.5, 4), (0.75, 6), (1.0, 8)])
@pytest.mark.parametrize(("best", "further"), [(10.0, 12.0), (39.0, HIGH)], ids=["free", "capped"])
def test_exploring_commands_exceed_the_best_and_the_others_are_even_over_the_range(explore, exploring, best, further):
    one = maker(explore=explore, population=8, settling=0, warmup=8)
    tell(one, one.ask(), torch.tensor([[-20.0, *[0.0] * 6, best], [5.0, *[6.0] * 6, best - 1]]))
    commands = commanded(one, 200)
    for s, (low, high) in enumerate([(-20.0, best), (5.0, best - 1)]):
        goes = commands[s] == min(further - s * (best == 10), HIGH)
        assert (goes.sum(-1) == exploring).all()
        if exploring < 8:
            share = (commands[s][~goes] - low) / (high - low)
            assert share.min() >= 0
            assert share.max() <= 1
            assert stats.kstest(share[: 4 * (8 - exploring)], "uniform").pvalue > 1e-3
            assert np.histogram(share, 8, (0, 1))[0] == pytest.approx(200 - 25 * exploring, rel=0.3)
        if exploring == 0:
            each = ((commands[s] - low) / (high - low) * 8).sort(-1).values
            torch.testing.assert_close(each.floor().clamp_max(7), torch.arange(8.0).expand(200, 8))


def test_before_any_return_the_lowest_is_the_range():
    one = maker(settling=4, warmup=0, explore=0.5)
    tell(one, one.ask())
    assert torch.equal(one.seen(), torch.full((2, 2), LOW))
    assert torch.equal(commanded(one, 1).squeeze(1).sort(-1).values, torch.tensor([[LOW, LOW, LOW + 2, LOW + 2]] * 2))


def residuals(one: GoGePo) -> tuple[torch.Tensor, torch.Tensor]:
    """What one generation adds to the policies made for its commands, `[S, N, P]`, and the commands `[S, N]`."""
    seen = watched(one)
    theta = one.ask()
    return theta - one.generate(seen[0]), seen[0]


def test_every_policy_draws_the_size_of_its_noise():
    one = practise(maker(population=200, noise=(0.1, 10.0), settling=0, warmup=200, policy_steps=0, critic_steps=1), 1)
    noise, _ = residuals(one)
    for rows in noise:
        large = rows.abs().amax(-1) > 1
        assert stats.binomtest(int(large.sum()), 200, 0.5).pvalue > 1e-3
        assert stats.kstest((rows[large] / 10).flatten(), "norm").pvalue > 1e-3
        assert stats.kstest((rows[~large] / 0.1).flatten(), "norm").pvalue > 1e-3
    assert not torch.equal(noise[0], noise[1])


def test_no_noise_plays_what_is_generated():
    noise, _ = residuals(practise(maker(noise=(0.0,)), 4))
    assert (noise == 0).all()


def test_closing_ends_exploration_quarters_the_noise_and_plays_every_second_policy_without():
    common = {"population": 200, "noise": (0.4,), "settling": 0, "warmup": 200, "policy_steps": 0, "critic_steps": 1}
    before, after = (practise(maker(closing=closing, **common), 1) for closing in (201, 200))
    noise, commands = residuals(before)
    assert (noise.abs().amax(-1) > 0).all()
    assert ((commands > before.seen()[:, 1:]).sum(-1) == 100).all()
    noise, commands = residuals(after)
    low, best = after.seen().split(1, -1)
    assert (commands >= low).all()
    assert (commands <= best).all()
    assert ((commands - low) / (best - low)).std(-1).min() > 0.25
    still = noise.abs().amax(-1) == 0
    assert (still.sum(-1) == 100).all()
    assert stats.kstest((noise[~still] / 0.1).flatten(), "norm").pvalue > 1e-3


def test_policies_without_noise_cover_the_range_too():
    one, still = practise(maker(closing=1, policy_steps=0), 3), []
    for _ in range(50):
        noise, commands = residuals(one)
        share = (commands - one.seen()[:, :1]) / (one.seen()[:, 1:] - one.seen()[:, :1])
        still.append(share[noise.abs().amax(-1) == 0])
        tell(one, one.ask(), torch.zeros(2, 4))
    assert (np.histogram(torch.cat(still), 4, (0, 1))[0] > 30).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_closes_after_its_own_steps(seed):
    lengths = [1, 9]
    together, alone = maker(closing=90), maker(closing=90, seeds=[seed])
    for generations in range(4):
        many, one = together.ask(), alone.ask()
        torch.testing.assert_close(many[seed], one[0], rtol=1e-3, atol=1e-3, msg=f"after {generations} generations")
        tell(together, many, lengths=lengths)
        tell(alone, one, lengths=lengths[seed : seed + 1])
    assert together.steps.tolist() == [16, 144]
    for one, s in ((together, seed), (alone, 0)):
        noise, commands = residuals(one)
        assert (commands[s] > one.seen()[s, 1]).any() == (seed == 0), "exploring ends with closing"
        assert (noise[s] == 0).all(-1).any() == (seed == 1), "noise-free policies begin with closing"


# -- when the generator learns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("replayed", "count"), [(0.0, 0), (0.5, 3), (0.75, 4), (1.0, 6)])
@pytest.mark.parametrize(("best", "top"), [(10.0, 12.0), (39.0, HIGH)], ids=["free", "capped"])
def test_commands_are_returns_of_the_replay_and_even_ones_up_to_the_drive(replayed, count, best, top):
    one = maker(settling=0, warmup=4, replayed=replayed)
    returns = torch.tensor([[-20.0, -7.0, 3.0, best], [0.0, 1.0, 2.0, best]], dtype=torch.float64)
    tell(one, one.ask(), returns)
    commands = one._training_commands(400, BOTH)
    assert commands.shape == (2, 400, 6)
    assert commands.dtype == torch.float64
    for s in range(2):
        stored, even = commands[s].split((count, 6 - count), -1)
        assert torch.isin(stored, returns[s]).all()
        if count:
            assert len(stored.unique()) == 4
        if count < 6:
            share = (even - returns[s, 0]) / (top - returns[s, 0])
            assert stats.kstest(share.flatten(), "uniform").pvalue > 1e-3
            assert even.max() <= top


def test_commands_of_the_replay_are_the_newest_or_evenly_those_of_all_ranges():
    returns = torch.cat([torch.zeros(2, 98), torch.tensor([[10.0, 1.0]] * 2)], -1)
    shares = {}
    for name, config in {"recency": {"recency": 30.0}, "buckets": {"buckets": 10}, "plain": {"recency": 0.0}}.items():
        one = maker(population=100, settling=0, warmup=100, replayed=1.0, critic_steps=1, policy_steps=0, **config)
        tell(one, one.ask(), returns)
        commands = one._training_commands(100, BOTH)
        shares[name] = [(commands == value).double().mean((1, 2)) for value in (0.0, 10.0, 1.0)]
    assert (shares["recency"][2] == 1).all()
    torch.testing.assert_close(torch.stack(shares["buckets"]), torch.full((3, 2), 1 / 3).double(), atol=0.08, rtol=0)
    assert (shares["plain"][0] > 0.9).all()
