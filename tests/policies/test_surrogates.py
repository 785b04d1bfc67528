"""The bounds that POIS climbs against loops over floats, their gradients, their Fisher information, their groups."""

from __future__ import annotations

import math

import pytest
import torch
from pois_helpers import CRITERIA, ESTIMATORS, PER_DECISION, POLICIES, ActionCase, ParameterCase, normal
from torch import Tensor
from torch.autograd.functional import hessian, jacobian
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from mindworks.core.divergences import renyi_normal
from mindworks.core.population import MLP
from mindworks.policies import surrogates
from mindworks.policies.surrogates import (
    Bound,
    Criterion,
    ParameterSurrogate,
    Returns,
    conjugate_gradients,
    neurons,
    second_order,
)

FIELDS = ("value", "estimate", "penalty", "log_divergence", "ess")
DOUBLE = math.log(2) / 2  # a log std this far above another has twice its variance


def assert_bound(bound: Bound, s: int, g: int, expected: dict[str, float]) -> None:
    for name in FIELDS:
        assert float(getattr(bound, name)[s, g]) == pytest.approx(expected[name], rel=1e-11, abs=1e-11), name


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [1, 2, 4])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_bounds_of_hyperpolicies_equal_a_loop(estimator: str, batches: int) -> None:
    case = ParameterCase(3, batches)
    for penalty, scale, center in CRITERIA:
        bound = case.surrogate(estimator, penalty, scale, center).bound(case.rho)
        for s in range(2):
            criterion = {"estimator": estimator, "penalty": penalty, "scale": scale, "center": center}
            assert_bound(bound, s, 0, case.by_hand(s, range(3), **criterion))


@pytest.mark.parametrize("batches", [1, 2, 4])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_bounds_per_neuron_equal_a_loop_over_its_own_parameters(estimator: str, batches: int) -> None:
    case = ParameterCase(7, batches)
    groups = [(0, 2), (1, 3), (4, 5, 6)]  # 1-2-1: two weights, two biases, then a row of two weights and its bias
    bound = case.surrogate(estimator, network=MLP((1, 2, 1))).bound(case.rho)
    criterion = {"estimator": estimator, "penalty": "divergence", "scale": "max", "center": False}
    for s in range(2):
        for g, members in enumerate(groups):
            assert_bound(bound, s, g, case.by_hand(s, members, **criterion))


@pytest.mark.parametrize("batches", [1, 2, 4])
@pytest.mark.parametrize("estimator", ESTIMATORS + PER_DECISION)
@pytest.mark.parametrize("kind", POLICIES)
def test_bounds_of_acting_policies_equal_a_loop(kind: str, estimator: str, batches: int) -> None:
    case = ActionCase(kind, batches)
    for penalty, scale, center in [("divergence", "max", False), ("divergence", "std", True), ("ess", "max", True)]:
        bound = case.surrogate(estimator, penalty, scale, center).bound(case.rho)
        for s in range(2):
            criterion = {"estimator": estimator, "penalty": penalty, "scale": scale, "center": center}
            assert_bound(bound, s, 0, case.by_hand(s, **criterion))


def test_what_a_seed_does_not_use_changes_nothing() -> None:
    case, other = ParameterCase(3, 2), ParameterCase(3, 2)
    other.theta[1, 0], other.behaviors[1, 0], other.values[1, :5] = 40.0, -3.0, 1e6
    acting, strange = ActionCase("gaussian", 2), ActionCase("gaussian", 2)
    strange.behaviors[1, 0], strange.values[1, :4] = 2.0, 1e6
    strange.steps.observations[1, 0], strange.steps.rewards[1, 0] = -9.0, 1e6
    for ours, theirs in ((case, other), (acting, strange)):
        for estimator in ESTIMATORS + (PER_DECISION if ours is acting else []):
            one, two = (c.surrogate(estimator, center=True).bound(ours.rho) for c in (ours, theirs))
            for name in FIELDS:
                torch.testing.assert_close(getattr(one, name), getattr(two, name), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("case", [ParameterCase(3, 1), ActionCase("gaussian", 1), ActionCase("reference", 1)])
def test_at_the_behaviour_there_is_nothing_to_weigh(case: ParameterCase | ActionCase) -> None:
    bound = case.surrogate("self-normalized").bound(case.behaviors[:, 0])
    size = case.values.shape[1]
    factor = ((1 - case.delta) / case.delta) ** 0.5
    torch.testing.assert_close(bound.estimate[:, 0], case.values.mean(1), rtol=1e-13, atol=0)
    torch.testing.assert_close(bound.log_divergence, torch.zeros(2, 1).double(), rtol=0, atol=1e-13)
    torch.testing.assert_close(bound.ess, torch.full((2, 1), float(size)).double(), rtol=1e-13, atol=0)
    expected = factor * case.values.abs().amax(1) / size**0.5
    torch.testing.assert_close(bound.penalty[:, 0], expected, rtol=1e-13, atol=0)


# -- gradients ---------------------------------------------------------------------------------------------------------


def gradient(case: ParameterCase | ActionCase, rho: Tensor, estimator: str, **criterion) -> Tensor:
    leaf = rho.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(case.surrogate(estimator, **criterion).value(leaf).sum(), leaf)
    return slope


@pytest.mark.parametrize("penalty", ["divergence", "ess", "none"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_at_the_behaviour_the_gradient_is_that_of_parameter_exploration(estimator: str, penalty: str) -> None:
    """The penalty is smallest there, so that it has no slope."""
    case = ParameterCase(3, 1)
    rho = case.behaviors[:, 0].clone().requires_grad_(True)
    mean, log_std = rho.unsqueeze(1).chunk(2, -1)
    log_prob = Independent(Normal(mean, log_std.exp()), 1).log_prob(case.theta[:, 0])
    base = case.values.mean(1, keepdim=True) if estimator == "self-normalized" else 0.0
    (expected,) = torch.autograd.grad(((case.values - base) * log_prob).mean(1).sum(), rho)
    torch.testing.assert_close(gradient(case, rho.detach(), estimator, penalty=penalty), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", ["plain", "self-normalized", "per-decision"])
@pytest.mark.parametrize("kind", POLICIES)
def test_at_the_behaviour_the_gradient_is_reinforce(kind: str, estimator: str) -> None:
    """Episode by episode; a reward is credited to all actions, or to those up to it."""
    case = ActionCase(kind, 1)
    expected = []
    for s in range(2):
        rho = case.behaviors[s, 0].clone().requires_grad_(True)
        total = torch.zeros(()).double()
        for n in range(4):
            end = int(case.lengths[s, 0, n])
            obs, actions = case.steps.observations[s, 0, n, :end], case.steps.actions[s, 0, n, :end]
            log_prob = case.policy.log_prob(rho, obs, actions)
            if estimator == "per-decision":
                total = total + (log_prob.cumsum(0) * case.steps.rewards[s, 0, n, :end]).sum()
            else:
                base = float(case.values[s].mean()) if estimator == "self-normalized" else 0.0
                total = total + (case.values[s, n] - base) * log_prob.sum()
        expected.append(torch.autograd.grad(total / 4, rho)[0])
    ours = gradient(case, case.behaviors[:, 0], estimator)
    torch.testing.assert_close(ours, torch.stack(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("penalty", "scale"), [("divergence", "max"), ("ess", "std")])
def test_gradients_are_finite_differences(penalty: str, scale: str) -> None:
    """With two batches, of which the second seed uses one."""
    cases: list[ParameterCase | ActionCase] = [ParameterCase(6, 2), *(ActionCase(kind, 2) for kind in POLICIES)]
    for case in cases:
        for estimator in ESTIMATORS + (PER_DECISION if isinstance(case, ActionCase) else []):
            value = case.surrogate(estimator, penalty, scale, center=True).value
            assert torch.autograd.gradcheck(value, case.rho.clone().requires_grad_(True), fast_mode=True)
    value = cases[0].surrogate("self-normalized", penalty, scale, network=MLP((2, 2))).value
    assert torch.autograd.gradcheck(value, cases[0].rho.clone().requires_grad_(True), fast_mode=True)


# -- where the divergence is infinite ----------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", ["divergence", "ess", "none"])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_twice_the_variance_is_out_of_bounds_however_many_coordinates_have_it(count: int, penalty: str) -> None:
    """A product over coordinates would be positive for an even number of them, and the bound finite nonsense."""
    case = ParameterCase(4, 1)
    for above, finite in ((1e-9, False), (0.3, False), (-1e-6, True)):
        rho = case.behaviors[:, 0].clone()
        rho[0, 4 : 4 + count] += DOUBLE + above
        value = case.surrogate("self-normalized", penalty).value(rho)
        assert bool(torch.isfinite(value[0, 0])) is finite
        assert finite or float(value[0, 0]) == -math.inf
        assert torch.isfinite(value[1, 0])


@pytest.mark.parametrize("count", [1, 2])
def test_twice_the_variance_of_the_actions_is_out_of_bounds(count: int) -> None:
    case = ActionCase("gaussian", 1)
    for above, finite in ((1e-9, False), (0.3, False), (-1e-6, True)):
        rho = case.behaviors[:, 0].clone()
        rho[0, 6 : 6 + count] += DOUBLE + above
        for estimator in ESTIMATORS + PER_DECISION:
            value = case.surrogate(estimator).value(rho)
            assert bool(torch.isfinite(value[0, 0])) is finite
            assert finite or float(value[0, 0]) == -math.inf
            assert torch.isfinite(value[1, 0])


def test_the_short_form_of_the_divergence_equals_the_careful_one() -> None:
    mean, log_p, log_q = normal(3, 1000)
    log_p, log_q = 0.5 * log_p, 0.5 * log_q
    ours = second_order(mean.square(), log_p, log_q)
    expected = renyi_normal(mean, log_p, torch.zeros_like(mean), log_q, 2.0)
    assert 100 < int(torch.isinf(ours).sum()) < 900
    assert torch.equal(torch.isinf(ours), torch.isinf(expected))
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def wide(case: ParameterCase | ActionCase, k: int) -> Tensor:
    """The last behaviour, with all of the first seed's deviations more than a root of 2 above those of batch `k`."""
    start = case.size if isinstance(case, ParameterCase) else case.policy.network.num_parameters
    rho = case.behaviors[:, -1].clone()
    rho[0, start:] = case.behaviors[0, k, start:] + DOUBLE + 0.2
    return rho


@pytest.mark.parametrize("case", [ParameterCase(4, 1), ActionCase("gaussian", 1)])
def test_a_seed_out_of_bounds_leaves_the_gradient_of_the_others_alone(case: ParameterCase | ActionCase) -> None:
    rho = wide(case, 0)
    leaf = rho.clone().requires_grad_(True)
    value = case.surrogate("self-normalized").value(leaf)
    assert value[0, 0] == -math.inf
    (slope,) = torch.autograd.grad(value[torch.isfinite(value)].sum(), leaf)
    expected = gradient(case, case.behaviors[:, -1], "self-normalized")
    torch.testing.assert_close(slope[1], expected[1], rtol=0, atol=1e-14)
    assert (expected[1] != 0).any()


@pytest.mark.parametrize("case", [ParameterCase(4, 2), ActionCase("gaussian", 2)])
def test_a_behaviour_of_infinite_divergence_drops_out_of_value_and_gradient(case: ParameterCase | ActionCase) -> None:
    """The target is too wide for the first behaviour and not for the second: half the episodes speak for it.

    The other seed does not use the first behaviour at all.
    """
    start = case.size if isinstance(case, ParameterCase) else case.policy.network.num_parameters
    case.behaviors[:, 0, start:] = case.behaviors[:, 1, start:] - 1.0
    rho = case.behaviors[:, -1].clone()
    bound = case.surrogate("self-normalized").bound(rho)
    assert bound.log_divergence[:, 0].tolist() == pytest.approx([math.log(2), 0.0], abs=1e-12)
    assert torch.isfinite(bound.value).all()
    assert torch.isfinite(gradient(case, rho, "self-normalized")).all()
    assert torch.autograd.gradcheck(case.surrogate("self-normalized").value, rho.requires_grad_(True))


# -- the natural gradient ----------------------------------------------------------------------------------------------


def test_the_fisher_information_of_a_hyperpolicy_is_the_curvature_of_its_divergence() -> None:
    case = ParameterCase(3, 1)
    slope = normal(2, 6, seed=9)
    ours = case.surrogate("plain").natural(case.rho, slope)
    for s in range(2):
        old = Independent(Normal(case.rho[s, :3], case.rho[s, 3:].exp()), 1)
        fisher = hessian(lambda r, p=old: kl_divergence(p, Independent(Normal(r[:3], r[3:].exp()), 1)), case.rho[s])
        torch.testing.assert_close(ours[s], torch.linalg.solve(fisher, slope[s]), rtol=1e-12, atol=1e-12)


def states(case: ActionCase, s: int) -> Tensor:
    """The observations `[B, D]` of all steps of the episodes that seed `s` uses."""
    return torch.cat([case.steps.observations[s, k, n, : case.lengths[s, k, n]] for k, n in case.episodes(s)])


def dense_fisher(case: ActionCase, s: int) -> Tensor:
    """The Hessian of the mean over episodes of sum_t KL(pi_rho || pi_r) in r, at r = rho: torch's own divergence."""
    policy, obs = case.policy, states(case, s)

    def distribution(rho: Tensor) -> Normal | Categorical:
        outputs = policy.outputs(rho, obs)
        if policy.continuous:
            return Normal(outputs, policy.split(rho)[1].exp().expand_as(outputs))
        return Categorical(logits=policy.logits(outputs))

    old = distribution(case.rho[s])
    return hessian(lambda r: kl_divergence(old, distribution(r)).sum() / len(case.episodes(s)), case.rho[s])


def operator(case: ActionCase, counts: Tensor) -> Tensor:
    """The matrices `[S, P, P]` of `_fisher`, column by column."""
    surrogate, size = case.surrogate("plain"), case.rho.shape[1]
    product = surrogate._fisher(case.rho, counts)
    columns = [product(row.expand(2, -1)) for row in torch.eye(size).double()]
    return torch.stack(columns, -1)


def weight_of_steps(case: ActionCase) -> Tensor:
    """One over the number of episodes for every step that counts, `[S, K * N * T, 1]`."""
    used = case.valid[:, :, None, None] & case.mask
    return used.flatten(1).unsqueeze(-1) / (4.0 * case.valid.sum(1))[:, None, None]


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("kind", POLICIES)
def test_the_fisher_information_of_episodes_is_the_curvature_of_their_divergence(kind: str, batches: int) -> None:
    case = ActionCase(kind, batches)
    matrices = operator(case, weight_of_steps(case).double())
    for s in range(2):
        torch.testing.assert_close(matrices[s], dense_fisher(case, s), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", ["categorical", "reference"])
def test_the_fisher_information_is_the_mean_outer_product_of_the_score(kind: str) -> None:
    case = ActionCase(kind, 2)
    matrices = operator(case, weight_of_steps(case).double())
    for s in range(2):
        expected = torch.zeros_like(matrices[s])
        for obs in states(case, s):
            scores = jacobian(lambda r, o=obs: case.policy.log_prob(r, o.expand(3, -1), torch.arange(3)), case.rho[s])
            p = case.policy.features(case.rho[s], obs.unsqueeze(0))[0]
            expected += torch.einsum("a,ai,aj->ij", p, scores, scores) / len(case.episodes(s))
        torch.testing.assert_close(matrices[s], expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", POLICIES)
def test_many_iterations_solve_for_the_natural_gradient(kind: str) -> None:
    case = ActionCase(kind, 2, damping=0.03, iterations=400)
    slope = normal(2, case.rho.shape[1], seed=9)
    ours = case.surrogate("plain").natural(case.rho, slope)
    for s in range(2):
        damped = dense_fisher(case, s) + 0.03 * torch.eye(len(slope[s])).double()
        torch.testing.assert_close(ours[s], torch.linalg.solve(damped, slope[s]), rtol=1e-6, atol=1e-6)


def test_the_gradient_stands_in_for_a_direction_that_leads_downhill(monkeypatch: pytest.MonkeyPatch) -> None:
    case = ActionCase("gaussian", 1)
    slope = normal(2, 8, seed=9)
    factors = torch.tensor([[-1.0], [3.0]]).double()
    monkeypatch.setattr(surrogates, "conjugate_gradients", lambda product, b, iterations: factors * b)
    ours = case.surrogate("plain").natural(case.rho, slope)
    torch.testing.assert_close(ours, torch.tensor([[1.0], [3.0]]).double() * slope, rtol=0, atol=0)


def test_conjugate_gradients_solve_each_system_by_itself() -> None:
    root = normal(3, 6, 6)
    matrices = root @ root.mT + 0.5 * torch.eye(6).double()
    matrices[1] = torch.diag(torch.tensor([2.0, 2.0, 2.0, 2.0, 2.0, 2.0]))  # over after one iteration
    b = normal(3, 6, seed=1)
    b[2] = 0.0
    calls = []

    def apply(v: Tensor) -> Tensor:
        calls.append(len(v))
        return (matrices @ v.unsqueeze(-1)).squeeze(-1)

    x = conjugate_gradients(apply, b, 40)
    torch.testing.assert_close(x[:2], torch.linalg.solve(matrices[:2], b[:2]), rtol=0, atol=1e-9)
    assert (x[2] == 0).all()
    assert len(calls) < 12
    first = conjugate_gradients(apply, b, 1)
    length = b[0].square().sum() / (b[0] @ matrices[0] @ b[0])
    torch.testing.assert_close(first[0], length * b[0], rtol=1e-13, atol=0)
    one = conjugate_gradients(lambda v: v @ matrices[0], b[:1], 3)
    torch.testing.assert_close(conjugate_gradients(apply, b, 3)[:1], one, rtol=1e-13, atol=1e-13)


# -- neurons -----------------------------------------------------------------------------------------------------------


def test_a_neurons_own_are_its_row_of_weights_and_its_bias() -> None:
    assert neurons(MLP((2, 2, 1))).tolist() == [0, 0, 1, 1, 0, 1, 2, 2, 2]
    assert neurons(MLP((2, 2, 1), bias=False)).tolist() == [0, 0, 1, 1, 2, 2]
    assert neurons(MLP((1, 3, 2))).tolist() == [0, 1, 2, 0, 1, 2, 3, 3, 3, 4, 4, 4, 3, 4]
    assert neurons(MLP((3, 1))).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("bias", [True, False])
def test_the_bound_of_a_neuron_depends_on_its_own_parameters_alone(bias: bool) -> None:
    network = MLP((2, 2, 1), bias=bias)
    case = ParameterCase(network.num_parameters, 2)
    surrogate = case.surrogate("self-normalized", network=network)
    slopes = jacobian(surrogate.value, case.rho)  # [S, G, S, R]
    own = surrogate.group == torch.arange(3).unsqueeze(-1)
    assert torch.equal(surrogate.group, neurons(network).repeat(2))
    for s in range(2):
        assert (slopes[s, :, 1 - s] == 0).all()
        assert (slopes[s, :, s][~own] == 0).all()
        assert (slopes[s, :, s][own] != 0).all()


@pytest.mark.parametrize("bias", [True, False])
def test_weights_and_divergences_of_the_neurons_multiply_to_those_of_the_whole(bias: bool) -> None:
    """With one episode that earned 1, the plain estimate is the weight."""
    network = MLP((2, 3, 2), bias=bias)
    case = ParameterCase(network.num_parameters, 1)
    returns = Returns(torch.ones(2, 1).double(), torch.ones(2, 1, dtype=torch.bool), False, "max")
    whole, parts = (
        ParameterSurrogate(
            case.theta[:, :, :1], case.behaviors, case.valid, returns, Criterion("plain", "none", 0.5), net
        ).bound(case.rho)
        for net in (None, network)
    )
    assert parts.estimate.shape == (2, 5)
    torch.testing.assert_close(parts.estimate.log().sum(1), whole.estimate.log()[:, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(parts.log_divergence.sum(1), whole.log_divergence[:, 0], rtol=0, atol=1e-12)


def test_a_network_of_one_neuron_has_the_bound_of_the_whole() -> None:
    case = ParameterCase(3, 2)
    whole = case.surrogate("self-normalized").bound(case.rho)
    single = case.surrogate("self-normalized", network=MLP((2, 1))).bound(case.rho)
    for name in FIELDS:
        torch.testing.assert_close(getattr(single, name), getattr(whole, name), rtol=1e-13, atol=1e-13)


def test_one_neuron_out_of_bounds_leaves_the_others_alone() -> None:
    network = MLP((2, 2, 1))
    case = ParameterCase(9, 1)
    rho = case.behaviors[:, 0].clone()
    inside = case.surrogate("self-normalized", network=network).value(rho)
    rho[0, 9 + 2] += DOUBLE + 0.1  # a weight of the second neuron
    value = case.surrogate("self-normalized", network=network).value(rho)
    assert value[0, 1] == -math.inf
    assert torch.equal(value[0, [0, 2]], inside[0, [0, 2]])
    assert torch.equal(value[1], inside[1])
