"""Exact reward-weighted regression against plain loops, its objective and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.core.finite_mdp import MDP, DeterministicMDP, FiniteMDP, chain, four_rooms, garnet
from mindworks.errors import InputError
from mindworks.tabular import RewardWeightedRegression, asymptotic_rate, rwr_step, rwr_weights


def positive_garnet(*seeds: int, count: int = 3, discount: float = 0.8) -> FiniteMDP:
    """Random processes `[seeds, count]` of 6 states and 3 actions with rewards |N(0, 1)|."""
    made = garnet(count, 6, 3, discount=discount, seeds=seeds, branching=2)
    return FiniteMDP(made.transition, made.reward.abs(), discount)


def drawn(mdp: MDP, *leading: int, seed: int = 0) -> torch.Tensor:
    """Random policies of full support."""
    return mdp.random_policy(leading, torch.Generator().manual_seed(seed))


def bandit(*rewards: float) -> DeterministicMDP:
    """One state, no future."""
    return DeterministicMDP(torch.zeros(1, len(rewards)).long(), torch.tensor([rewards], dtype=torch.float64), 0.0)


def test_a_step_is_what_plain_loops_compute():
    mdp = positive_garnet(0)
    policy = drawn(mdp, 1, 3)
    found, value = rwr_step(mdp, policy)
    for n in range(3):
        p, r, pi = mdp.transition[0, n].numpy(), mdp.reward[0, n].numpy(), policy[0, n].numpy()
        v = np.zeros(6)
        for _ in range(400):
            v = np.array([sum(pi[s, a] * (r[s, a] + 0.8 * p[s, a] @ v) for a in range(3)) for s in range(6)])
        wanted = [[pi[s, a] * (r[s, a] + 0.8 * p[s, a] @ v) / v[s] for a in range(3)] for s in range(6)]
        np.testing.assert_allclose(found[0, n], wanted, rtol=1e-12)
        np.testing.assert_allclose(value[0, n], v, rtol=1e-12)


def test_a_step_maximises_the_weighted_likelihood():
    mdp = positive_garnet(1)
    policy, start = drawn(mdp, 1, 3), torch.full((6,), 1 / 6, dtype=torch.float64)
    found, _ = rwr_step(mdp, policy)
    weights = rwr_weights(mdp, policy, start)
    torch.testing.assert_close(found, weights / weights.sum(-1, keepdim=True), rtol=1e-12, atol=0)
    # the weights of the definition: visits, probabilities and expected returns, each from its own sum over time
    chained, visits, at_time = mdp.induced(policy), torch.zeros(1, 3, 6).double(), start.expand(1, 3, 6)
    for t in range(200):
        visits = visits + 0.8**t * at_time
        at_time = torch.einsum("zns,znst->znt", at_time, chained)
    expected = visits.unsqueeze(-1) * policy * mdp.action_value(mdp.state_value(policy))
    torch.testing.assert_close(weights, expected, rtol=1e-12, atol=0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), discount=st.sampled_from([0.0, 0.5, 0.95]), sparse=st.booleans())
def test_rows_stay_distributions_and_no_value_falls(seed, discount, sparse):
    mdp = positive_garnet(seed, count=2, discount=discount)
    if sparse:  # most rewards 0: some states and actions have value 0
        mdp = FiniteMDP(mdp.transition, torch.where(mdp.reward > 1.5, mdp.reward, 0.0), discount)
    found = RewardWeightedRegression(mdp).run(drawn(mdp, 1, 2, seed=seed), 30)
    assert found.policy.isfinite().all()
    assert (found.policy >= 0).all()
    assert (found.policy.sum(-1) - 1).abs().max() <= 1e-13
    scale = float(mdp.optimal_value().max())
    assert (found.largest_fall() <= 1e-14 * max(scale, 1.0)).all()
    assert (found.gaps() >= -1e-13 * max(scale, 1.0)).all()


def test_float32_sweeps_in_place_take_the_same_steps():
    """The published code evaluates so: float32, sweeps over cells and actions until nothing changes by 1e-7."""
    mdp = four_rooms()
    policy = drawn(mdp)
    found = RewardWeightedRegression(mdp).run(policy, 3)
    following, reward, weights = mdp.successor.tolist(), mdp.reward.tolist(), policy.numpy().copy()
    for n in range(3):
        value, change = np.zeros(68, np.float32), np.inf
        while change > 1e-7:
            change = 0.0
            for s in range(68):
                new = sum(weights[s, a] * (reward[s][a] + 0.9 * value[following[s][a]]) for a in range(4))
                change, value[s] = max(change, abs(new - value[s])), new
        np.testing.assert_allclose(found.values[n], value, atol=2e-6)
        q = np.array([[reward[s][a] + 0.9 * value[following[s][a]] for a in range(4)] for s in range(68)])
        weights *= q / value[:, None]
    np.testing.assert_allclose(found.policy, weights, atol=1e-5)


def test_the_slowest_mode_in_four_rooms_is_a_bump_into_the_wall_at_the_start():
    mdp = four_rooms()
    value = float(mdp.optimal_value()[0])
    found = RewardWeightedRegression(mdp).run(drawn(mdp, 20), 200)
    assert float(found.predicted_rate) == pytest.approx(0.9 + 0.001 / value, abs=1e-14)
    assert (found.rate() - found.predicted_rate).abs().max() <= 0.01
    assert (found.errors()[199] <= 1e-8).all()


def test_a_bandit_follows_the_power_law_and_its_rate():
    mdp = bandit(1.0, 0.7, 0.2, 1.0)
    policy = torch.tensor([[0.1, 0.2, 0.4, 0.3]], dtype=torch.float64)
    found = RewardWeightedRegression(mdp).run(policy, 60)
    power = policy * mdp.reward**60
    torch.testing.assert_close(found.policy, power / power.sum(), rtol=1e-13, atol=0)
    assert float(found.predicted_rate) == pytest.approx(0.7, abs=1e-15)
    assert float(found.rate()) == pytest.approx(0.7, abs=1e-6)
    torch.testing.assert_close(found.policy[0, [0, 3]], torch.tensor([0.25, 0.75]).double(), rtol=0, atol=1e-9)


def test_rates_are_measured_far_below_rounding():
    mdp = bandit(1.0, 0.5)
    found = RewardWeightedRegression(mdp).run(mdp.uniform_policy(), 400)
    assert found.errors()[-1] < 1e-15  # nothing to be seen in the values
    assert float(found.rate()) == pytest.approx(0.5, abs=1e-14)
    assert RewardWeightedRegression(mdp).run(mdp.uniform_policy(), 2000).rate().isnan().all()  # 2^-2000
    assert RewardWeightedRegression(mdp).run(mdp.uniform_policy(), 0).rate().isnan().all()


def test_each_worse_action_shrinks_by_its_own_ratio():
    mdp = positive_garnet(2, discount=0.5)
    end = RewardWeightedRegression(mdp).run(drawn(mdp, 1, 3), 1500).policy
    later, _ = rwr_step(mdp, end)
    ratio = mdp.optimal_action_value() / mdp.optimal_value().unsqueeze(-1)
    worse = ~mdp.optimal_actions() & (end > 1e-200)
    assert worse.any()
    torch.testing.assert_close((later / end)[worse], ratio[worse], rtol=1e-3, atol=0)


def test_where_every_action_is_optimal_the_rate_is_zero_and_nothing_moves():
    mdp = bandit(0.4, 0.4)
    found = RewardWeightedRegression(mdp).run(drawn(mdp), 10, keep=True)
    assert float(asymptotic_rate(mdp)) == 0
    assert found.policies is not None
    torch.testing.assert_close(found.policies, found.policies[:1].expand(11, 1, 2), rtol=1e-14, atol=0)


def test_states_of_value_zero_keep_their_row():
    mdp = chain(5, discount=0.9)
    policy = drawn(mdp)
    found = RewardWeightedRegression(mdp).run(policy, 100)
    assert torch.equal(found.policy[4], policy[4])
    assert (found.policy[:4, 1] > 0.99).all()
    nothing = DeterministicMDP(mdp.successor, torch.zeros_like(mdp.reward), 0.9)
    assert torch.equal(RewardWeightedRegression(nothing).run(policy, 3).policy, policy)


def test_tiny_values_are_no_reason_to_stop():
    mdp = chain(300, discount=0.3)  # the first value is about 1e-156 at best
    found = RewardWeightedRegression(mdp).run(mdp.uniform_policy(), 50)
    assert (found.policy.sum(-1) - 1).abs().max() <= 1e-13
    assert (found.policy[:299, 1] > 0.9).all()


def test_rows_do_not_drift():
    mdp = four_rooms()
    found = RewardWeightedRegression(mdp).run(drawn(mdp, 3), 2000)
    assert (found.policy.sum(-1) - 1).abs().max() <= 5e-15
    # not because they are normalised: one step repairs a row, since V is the sum of pi Q for that very row
    off = drawn(mdp) * (1 + 1e-3 * torch.rand(68, 1, dtype=torch.float64))
    assert (rwr_step(mdp, off)[0].sum(-1) - 1).abs().max() <= 1e-14


def test_batches_equal_single_runs():
    mdp = positive_garnet(3, 4)
    policies = drawn(mdp, 2, 2, 3)  # two policies on each of [2, 3] processes
    together = RewardWeightedRegression(mdp).run(policies, 20, keep=True)
    assert together.values.shape == (21, 2, 2, 3, 6)
    assert together.policies is not None
    rates, predicted = together.rate(), together.predicted_rate
    for i, s, n in np.ndindex(2, 2, 3):
        single = FiniteMDP(mdp.transition[s, n], mdp.reward[s, n], 0.8)
        alone = RewardWeightedRegression(single).run(policies[i, s, n], 20, keep=True)
        assert alone.policies is not None
        torch.testing.assert_close(alone.values, together.values[:, i, s, n], rtol=1e-12, atol=0)
        torch.testing.assert_close(alone.policies, together.policies[:, i, s, n], rtol=1e-12, atol=0)
        torch.testing.assert_close(alone.rate(), rates[i, s, n], rtol=1e-9, atol=0)
        torch.testing.assert_close(alone.predicted_rate, predicted[s, n], rtol=1e-12, atol=0)


def test_what_a_run_keeps():
    mdp = four_rooms()
    policy = drawn(mdp, 2)
    found = RewardWeightedRegression(mdp).run(policy, 8, keep=True)
    assert found.policies is not None
    assert torch.equal(found.policies[0], policy)
    assert torch.equal(found.policies[8], found.policy)
    assert torch.equal(found.policies[6], found.earlier)
    for n in (0, 3, 8):
        torch.testing.assert_close(found.values[n], mdp.state_value(found.policies[n]), rtol=1e-14, atol=0)
    gap = mdp.optimal_value() - found.values
    assert torch.equal(found.errors(), gap.max(-1).values)
    torch.testing.assert_close(found.rmsve(), (gap**2).mean(-1) ** 0.5)
    still = RewardWeightedRegression(mdp).run(policy, 0, keep=True)
    assert torch.equal(still.policy, policy)
    assert still.values.shape == (1, 2, 68)


FLAT = torch.full((1, 2), 0.5, dtype=torch.float64)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: RewardWeightedRegression(bandit(1.0, -0.25)), "reward.*negative.*-0.25.*Q / V"),
        (lambda: RewardWeightedRegression(bandit(1.0, 0.5)).run(FLAT.flip(0).roll(1)[:, :1], 1), "policy"),
        (lambda: RewardWeightedRegression(bandit(1.0, 0.5)).run(torch.tensor([[1.0, 0.0]]).double(), 1), "support.*0"),
        (lambda: RewardWeightedRegression(bandit(1.0, 0.5)).run(FLAT * 1.01, 1), "policy.*sum to 1.*0.01"),
        (lambda: RewardWeightedRegression(bandit(1.0, 0.5)).run(FLAT * torch.nan, 1), "policy"),
        (lambda: RewardWeightedRegression(bandit(1.0, 0.5)).run(FLAT.float(), 1), "policy.*float32"),
        (lambda: RewardWeightedRegression(bandit(1.0, 0.5)).run(FLAT, -1), "iterations.*-1"),
        (lambda: FiniteMDP(torch.ones(1, 2, 1), FLAT, 1.0), "discount.*1.0"),
        (lambda: FiniteMDP(torch.ones(1, 2, 1), FLAT, 1.5), "discount.*1.5"),
    ],
)
def test_bad_input_is_refused_with_the_reason(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
