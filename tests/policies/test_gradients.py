"""The gradients of parameter-based value functions against the policy gradient theorem, differences and sampling."""

from __future__ import annotations

import math

import pytest
import torch

from mindworks.core.finite_mdp import FiniteMDP, garnet
from mindworks.core.policy import Box, Categorical, Policy
from mindworks.core.population import MLP
from mindworks.policies.exact import (
    SmoothActions,
    deterministic_action_gradient,
    start_and_state_gradients,
    stochastic_action_gradient,
)
from mindworks.policies.gradients import deterministic_objective, state_objective, stochastic_objective

STATES, ACTIONS = 5, 3
CHOICE = Policy(MLP((STATES, ACTIONS)), Categorical(ACTIONS))
DEEP_CHOICE = Policy(MLP((STATES, 4, ACTIONS)), Categorical(ACTIONS))
SMOOTH = Policy(MLP((STATES, 1)), Box((-2.0,), (3.0,)))
ONE_HOT = torch.eye(STATES, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative_error(estimate: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return (estimate - truth).norm(dim=-1) / truth.norm(dim=-1)


def gradient_in(theta: torch.Tensor, objective) -> torch.Tensor:
    theta = theta.detach().requires_grad_(True)
    return torch.autograd.grad(objective(theta).sum(), theta)[0]


def by_differences(theta: torch.Tensor, objective, step: float = 1e-5) -> torch.Tensor:
    """The gradient of `objective(theta[..., P]) -> [...]` by central differences, one coordinate after the other."""
    columns = []
    for direction in torch.eye(theta.shape[-1], dtype=theta.dtype):
        columns.append((objective(theta + step * direction) - objective(theta - step * direction)) / (2 * step))
    return torch.stack(columns, -1)


@pytest.fixture(scope="module")
def processes() -> FiniteMDP:
    return garnet(2, STATES, ACTIONS, discount=0.9, seeds=[0, 1, 2], branching=3)


START, BEHAVIOR = normal(3, 2, STATES, seed=2).softmax(-1), normal(3, 2, STATES, seed=3).softmax(-1)
BEHAVIOR_POLICY = normal(3, 2, STATES, ACTIONS, seed=4).softmax(-1)
SMOOTH_PROCESSES = SmoothActions(3, 2, states=STATES, discount=0.9, generator=torch.Generator().manual_seed(5))


def pairs(processes: FiniteMDP, policy: Policy, theta: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    start, state = start_and_state_gradients(processes, policy, theta, START, BEHAVIOR)
    action = stochastic_action_gradient(processes, policy, theta, BEHAVIOR, BEHAVIOR_POLICY)
    return {"start": start, "state": state, "action": action}


def smooth_pair() -> tuple[torch.Tensor, torch.Tensor]:
    return deterministic_action_gradient(SMOOTH_PROCESSES, SMOOTH, normal(3, 2, SMOOTH.num_parameters), BEHAVIOR)


@pytest.mark.parametrize("policy", [CHOICE, DEEP_CHOICE], ids=["table", "deep"])
def test_discrete_gradients_equal_the_theorem(processes, policy):
    theta = normal(3, 2, policy.num_parameters)
    for ours, theorem in pairs(processes, policy, theta).values():
        assert ours.shape == (3, 2, policy.num_parameters)
        assert theorem.norm(dim=-1).min() > 1e-2
        assert relative_error(ours, theorem).max() < 1e-9


def test_continuous_gradients_equal_the_theorem():
    ours, theorem = smooth_pair()
    assert theorem.norm(dim=-1).min() > 1e-2
    assert relative_error(ours, theorem).max() < 1e-9


def test_all_gradients_are_slopes_of_the_value_itself(processes):
    theta = normal(3, 2, CHOICE.num_parameters)

    def value_from(weights):
        return lambda t: (weights * processes.state_value(CHOICE.features(t, ONE_HOT))).sum(-1)

    for name, (ours, _) in pairs(processes, CHOICE, theta).items():
        slope = by_differences(theta, value_from(START if name == "start" else BEHAVIOR))
        assert relative_error(ours, slope).max() < 1e-7

    smooth = normal(3, 2, SMOOTH.num_parameters)
    slope = by_differences(
        smooth, lambda t: (BEHAVIOR * SMOOTH_PROCESSES.state_value(SMOOTH.action(t, ONE_HOT).squeeze(-1))).sum(-1)
    )
    assert relative_error(smooth_pair()[0], slope).max() < 1e-7


def test_a_batch_of_processes_equals_single_ones(processes):
    theta = normal(3, 2, CHOICE.num_parameters)
    together = pairs(processes, CHOICE, theta)
    for s, n in ((0, 1), (2, 0)):
        single = FiniteMDP(processes.transition[s, n], processes.reward[s, n], 0.9)
        start, state = start_and_state_gradients(single, CHOICE, theta[s, n], START[s, n], BEHAVIOR[s, n])
        action = stochastic_action_gradient(single, CHOICE, theta[s, n], BEHAVIOR[s, n], BEHAVIOR_POLICY[s, n])
        for name, pair in {"start": start, "state": state, "action": action}.items():
            torch.testing.assert_close(pair[0], together[name][0][s, n], rtol=0, atol=1e-11)


def test_without_the_gradient_of_q_in_theta_the_stochastic_gradient_is_wrong(processes):
    theta = normal(3, 2, CHOICE.num_parameters)
    theorem = pairs(processes, CHOICE, theta)["action"][1]
    q = processes.action_value(processes.state_value(CHOICE.features(theta, ONE_HOT)))  # a critic blind to theta

    def off_policy_actor_critic(t):
        total = torch.zeros(3, 2, dtype=torch.float64)
        for a in range(ACTIONS):
            actions = torch.full((3, 2, STATES), a)
            surrogate = stochastic_objective(
                lambda t, s, chosen: q.gather(-1, chosen.unsqueeze(-1)).squeeze(-1),
                CHOICE, t, ONE_HOT, actions, BEHAVIOR_POLICY[..., a].log(),
            )  # fmt: skip
            total = total + (BEHAVIOR * BEHAVIOR_POLICY[..., a] * surrogate).sum(-1)
        return total

    assert relative_error(gradient_in(theta, off_policy_actor_critic), theorem).min() > 1e-2


def test_without_the_gradient_of_q_in_theta_the_deterministic_gradient_is_wrong():
    theta = normal(3, 2, SMOOTH.num_parameters)
    following = SMOOTH_PROCESSES.state_value(SMOOTH.action(theta, ONE_HOT).squeeze(-1))

    def deterministic_policy_gradient(t):
        def q(t, states, actions):
            return SMOOTH_PROCESSES.action_value(actions.squeeze(-1), following)

        return (BEHAVIOR * deterministic_objective(q, SMOOTH, t, ONE_HOT)).sum(-1)

    assert relative_error(gradient_in(theta, deterministic_policy_gradient), smooth_pair()[1]).min() > 1e-2


def test_the_state_objective_is_the_value():
    theta, states = normal(2, 4), normal(2, 3, 5)
    value = state_objective(lambda t, s: s.sum(-1) * t.sum(-1, keepdim=True), theta, states)
    torch.testing.assert_close(value, states.sum(-1) * theta.sum(-1, keepdim=True))


def test_the_deterministic_objective_has_both_terms_by_hand():
    # pi(s) = w s + b without bounds, Q(s, a, theta) = a^2 + 3 w: dQ/dw = 2 a s + 3, dQ/db = 2 a
    policy = Policy(MLP((1, 1)), Box((-torch.inf,), (torch.inf,)))
    theta = torch.tensor([2.0, -1.0], dtype=torch.float64)
    states = torch.tensor([[0.5], [3.0]], dtype=torch.float64)

    def objective(t):
        return deterministic_objective(lambda t, s, a: a.squeeze(-1) ** 2 + 3 * t[0], policy, t, states)

    a = 2 * states.squeeze(-1) - 1
    expected = torch.stack([(2 * a * states.squeeze(-1) + 3).sum(), (2 * a).sum()])
    torch.testing.assert_close(objective(theta), a**2 + 6)
    torch.testing.assert_close(gradient_in(theta, objective), expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_stochastic_objective_has_both_terms_by_hand(weighted):
    policy = Policy(MLP((1, 1)), Box((-torch.inf,), (torch.inf,), gaussian=True))
    theta = torch.tensor([2.0, -1.0, 0.3], dtype=torch.float64)
    states, actions = torch.tensor([[0.5]]).double(), torch.tensor([[0.7]], dtype=torch.float64)
    behavior = torch.tensor([-2.0], dtype=torch.float64) if weighted else None

    def objective(t):
        q = lambda t, s, a: a.squeeze(-1) * t[0] ** 2  # noqa: E731
        return stochastic_objective(q, policy, t, states, actions, behavior)

    mean, variance = 2 * 0.5 - 1, math.exp(0.6)
    q, error = 0.7 * 4, 0.7 - mean
    score = torch.tensor([error * 0.5 / variance, error / variance, error**2 / variance - 1], dtype=torch.float64)
    weight = policy.log_prob(theta, states, actions).exp() / math.exp(-2.0) if weighted else 1.0
    expected = weight * (q * score + torch.tensor([0.7 * 2 * 2.0, 0, 0], dtype=torch.float64))
    torch.testing.assert_close(gradient_in(theta, objective), expected, rtol=0, atol=1e-12)


def test_weights_are_one_where_the_behaviour_is_the_policy():
    theta = normal(2, CHOICE.num_parameters)
    actions = torch.randint(ACTIONS, (2, STATES), generator=torch.Generator().manual_seed(0))

    def q(t, states, chosen):
        return t.square().sum(-1, keepdim=True) * (1 + chosen)

    own = CHOICE.log_prob(theta, ONE_HOT, actions).detach()
    plain = gradient_in(theta, lambda t: stochastic_objective(q, CHOICE, t, ONE_HOT, actions))
    weighted = gradient_in(theta, lambda t: stochastic_objective(q, CHOICE, t, ONE_HOT, actions, own))
    doubled = gradient_in(theta, lambda t: stochastic_objective(q, CHOICE, t, ONE_HOT, actions, own - math.log(2)))
    torch.testing.assert_close(weighted, plain, rtol=0, atol=1e-12)
    torch.testing.assert_close(doubled, 2 * plain, rtol=0, atol=1e-11)


def test_sampled_gradients_converge_with_importance_weights_and_only_with_them(processes):
    mdp = FiniteMDP(processes.transition[0, 0], processes.reward[0, 0], 0.9)
    theta, behavior, behavior_policy = normal(CHOICE.num_parameters), BEHAVIOR[0, 0], BEHAVIOR_POLICY[0, 0]
    theorem = stochastic_action_gradient(mdp, CHOICE, theta, behavior, behavior_policy)[1]

    def estimate(count: int, weighted: bool) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        s = torch.multinomial(behavior, count, replacement=True, generator=generator)
        a = torch.multinomial(behavior_policy[s], 1, generator=generator).squeeze(-1)

        def objective(t):
            def q(t, states, chosen):
                return mdp.action_value(mdp.state_value(CHOICE.features(t, ONE_HOT)))[s, chosen]

            log_prob = behavior_policy[s, a].log() if weighted else None
            return stochastic_objective(q, CHOICE, t, ONE_HOT[s], a, log_prob).mean()

        return gradient_in(theta, objective)

    few, many = (float(relative_error(estimate(n, True), theorem)) for n in (200, 200_000))
    assert many < 0.02
    assert many < few / 5
    assert float(relative_error(estimate(200_000, False), theorem)) > 0.1
