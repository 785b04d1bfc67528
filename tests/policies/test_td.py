"""PSVF and PAVF: what they store, what they bootstrap on, and the values they converge to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from policy_helpers import TD, assert_same, environment, episodes_by_hand, generation, learner, of_seed, play

from mindworks.core.policy import Box, Categorical, Policy
from mindworks.core.population import MLP
from mindworks.envs import Trajectories
from mindworks.policies import PAVF, PSVF, TDConfig

both_kinds = pytest.mark.parametrize("kind", ["psvf", "pavf"])
# one critic step per environment step, on raw observations, and no policy step: the critic alone
CRITIC_ALONE = {"policy_steps": 0, "critic_steps": 1, "update_every": 1, "normalize_observations": False}


def stored(one, s: int = 0) -> dict[str, np.ndarray]:
    """The transitions of seed s, the oldest first."""
    ring = one.transitions
    slots = ring.slots(torch.arange(int(ring.size[s])).flip(0).expand(len(ring.size), -1))[s]
    return {name: rows[s, slots].numpy() for name, rows in ring.data.items()}


def drawn(one, count: int) -> torch.Tensor:
    """Slots of `count` transitions of the only seed, as an update would draw them."""
    assert len(one.streams) == 1
    return one._sample(count, np.array([True]))


def assert_stored(one, theta: torch.Tensor, episodes: Trajectories, s: int) -> None:
    """Seed s holds the transitions of its rows of `episodes` and nothing else, each with the policy that made it."""
    count = theta.shape[1]
    expected = episodes.transitions()
    mine = (expected["row"] >= s * count) & (expected["row"] < (s + 1) * count)
    held = stored(one, s)
    assert len(held["policy"]) == mine.sum()
    names = {"obs": "observation", "action": "action", "next_obs": "next_observation", "terminated": "terminated"}
    for ours, theirs in names.items():
        np.testing.assert_array_equal(held[ours], expected[theirs][mine], err_msg=ours)
    np.testing.assert_array_equal(held["reward"], expected["reward"][mine].astype(np.float32))
    slots = torch.from_numpy(held["policy"]).expand(len(theta), -1)
    assert torch.equal(one.replay.theta(slots)[s], theta[s, expected["row"][mine] - s * count])


@both_kinds
@pytest.mark.parametrize("task", ["LQR-v0", "CartPole-v1"])
@pytest.mark.parametrize("storage", ["float32", "seed"])
def test_every_transition_is_stored_with_the_policy_that_made_it(kind, task, storage):
    one, env = learner(kind, task, storage=storage, population=3, seeds=[0, 1]), environment(task, 6)
    theta, episodes = play(one, env)
    one.tell(theta, episodes)
    for s in range(2):
        assert_stored(one, theta, episodes, s)


ODD = {
    "truncated": {},
    "terminated": {"terminated": [True, False, True]},
    "diverged": {"diverged": [True, False, True]},
    "diverged and terminated": {"terminated": [True, True, True], "diverged": [True, False, True]},
}


@both_kinds
@pytest.mark.parametrize("ending", ODD)
def test_every_ending_is_stored_as_it_was(kind, ending):
    one = learner(kind, population=3, seeds=[0])
    observations = [[1.0, 2.0, 3.0, 3.0], [4.0, 5.0], [6.0, 7.0, 8.0]]
    episodes = episodes_by_hand([[1.0, 2.0, 0.0], [3.0], [4.0, 0.0]], observations, [[0.1] * 3, [0.2], [0.3] * 2],
                                **ODD[ending])  # fmt: skip
    theta = one.ask()
    one.tell(theta, episodes)
    assert_stored(one, theta, episodes, 0)


@both_kinds
@pytest.mark.parametrize(
    ("ends", "target"),
    [({}, 3.0 + 0.5 * 8.0), ({"terminated": [True]}, 3.0)],
    ids=["truncated", "terminated"],
)
def test_the_target_bootstraps_past_truncation_and_not_past_termination(kind, ends, target):
    one = learner(kind, population=1, seeds=[0], critic_hidden=(), discount=0.5, **CRITIC_ALONE)
    with torch.no_grad():
        one.phi.zero_()
        one.phi[:, -1] = 8.0  # a linear critic whose value is its bias everywhere
    one.tell(one.ask(), episodes_by_hand([[3.0]], [[1.0, 2.0]], **ends))
    gradient = one.critic_adam.mean[0, -1] / 0.1  # after one step, Adam's mean is a tenth of the gradient
    assert float(gradient) == pytest.approx(2 * (8.0 - target), rel=1e-5)


@both_kinds
def test_rewards_are_scaled_after_the_survival_bonus(kind):
    one = learner(kind, population=1, seeds=[0], survival_bonus=1.0, reward_scale=0.5)
    one.tell(one.ask(), episodes_by_hand([[4.0, 1.0, -1.0]]))
    assert stored(one)["reward"].tolist() == [1.5, 0.0, -1.0]


@both_kinds
def test_the_semi_gradient_does_not_flow_through_the_target(kind):
    # V(s) = w s with next state 2, reward 1: the gradient in w is 2 (w - 1 - 2 w / 2) 1 = -2, whatever w is
    one = learner(kind, population=1, seeds=[0], critic_hidden=(), discount=0.5, **CRITIC_ALONE)
    with torch.no_grad():
        one.phi.zero_()
        one.phi[:, 0] = 3.0
    one.tell(one.ask(), episodes_by_hand([[1.0]], [[1.0, 2.0]]))
    assert float(one.critic_adam.mean[0, 0] / 0.1) == pytest.approx(-2, rel=1e-5)


def test_the_next_action_is_that_of_the_policy_of_the_transition():
    # Q = 5 a, and theta plays tanh(b) everywhere: with discount 1/2 and reward 0 the target is 2.5 tanh(b)
    one = learner(
        "pavf",
        population=2,
        seeds=[0],
        critic_hidden=(),
        discount=0.5,
        **{**CRITIC_ALONE, "batch": 400, "update_every": 2},
    )
    with torch.no_grad():
        one.phi.zero_()
        one.phi[:, 1] = 5.0
    theta = torch.tensor([[[0.0, 1.0], [0.0, -0.4]]])
    one.tell(theta, episodes_by_hand([[0.0], [0.0]], actions=[[0.3], [-0.9]]))
    share = float(one.critic_adam.mean[0, -1] / 0.1)  # 2 E[5 a - 2.5 tanh(b)] over the drawn batch
    errors = [5 * 0.3 - 2.5 * np.tanh(1.0), 5 * -0.9 - 2.5 * np.tanh(-0.4)]
    fraction = (share / 2 - errors[1]) / (errors[0] - errors[1])
    assert fraction == pytest.approx(0.5, abs=0.15)
    assert round(fraction * 800) / 800 == pytest.approx(fraction, abs=1e-5)


@both_kinds
def test_values_converge_to_the_fixed_point_of_each_policy(kind):
    config = TDConfig(population=2, critic_hidden=(16,), lr_critic=1e-2, batch=16, discount=0.8, critic_steps=100,
                      update_every=1, policy_steps=0, normalize_observations=False)  # fmt: skip
    policy = Policy(MLP((1, 1)), Box((-1.0,), (1.0,)))
    one = {"psvf": PSVF, "pavf": PAVF}[kind](policy, config, [0, 1])
    theta = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).expand(2, 2, 2)
    actions = [[0.0, 0.0]] * 2
    if kind == "pavf":  # what the two policies do in the two states
        actions = [[float(np.tanh(-1)), float(np.tanh(1))], [float(np.tanh(1)), float(np.tanh(-1))]]
    one_seed = episodes_by_hand([[0.0, 3.0], [0.0, -1.0]], [[-1.0, 1.0, 0.0]] * 2, actions, [True, True])
    episodes = Trajectories(**{k: np.concatenate([v, v]) for k, v in vars(one_seed).items()})
    for _ in range(2):
        one.tell(theta, episodes)
    states = torch.tensor([-1.0, 1.0, -1.0, 1.0]).reshape(1, 4, 1).expand(2, 4, 1)
    each = theta.repeat_interleave(2, 1)
    extra = () if kind == "psvf" else (torch.tensor(actions).reshape(1, 4, 1).expand(2, 4, 1),)
    expected = torch.tensor([0.8 * 3, 3.0, 0.8 * -1, -1.0]).expand(2, 4)
    torch.testing.assert_close(one.value(each, states, *extra), expected, rtol=0, atol=0.1)


def test_an_endless_reward_is_worth_one_over_one_minus_the_discount():
    one = learner("psvf", population=1, seeds=[0], discount=0.5, **{**CRITIC_ALONE, "critic_steps": 30})
    for _ in range(3):
        one.tell(one.ask(), episodes_by_hand([[1.0] * 10]))
    theta = one.replay.theta(torch.tensor([[0, 1, 2]]))
    torch.testing.assert_close(one.value(theta, torch.zeros(1, 3, 1)), torch.full((1, 3), 2.0), rtol=0, atol=0.15)


@both_kinds
def test_values_have_one_number_per_state_for_one_policy_or_many(kind):
    one = learner(kind)
    obs, theta = torch.randn(3, 5, 1), torch.randn(3, 5, 2)
    extra = () if kind == "psvf" else (torch.randn(3, 5, 1),)
    many = one.value(theta, obs, *extra)
    assert many.shape == (3, 5)
    shared = one.value(theta[:, :1], obs, *extra)
    torch.testing.assert_close(shared, one.value(theta[:, :1].expand(3, 5, 2), obs, *extra))
    for s in range(3):
        parts = (obs[s], *(x[s] for x in extra), theta[s])
        by_hand = one.critic.network.module(one.phi[s].clone())(torch.cat(parts, -1)).squeeze(-1)
        torch.testing.assert_close(many[s], by_hand.detach())


def test_a_reference_action_is_an_action_too():
    policy = Policy(MLP((4, 1)), Categorical(2, reference=True))
    one = PAVF(policy, TDConfig(stochastic=True, population=2, critic_hidden=(8,), batch=4, **TD), seeds=[0, 1])
    for _ in range(2):
        theta, episodes = play(one, environment("CartPole-v1", 4))
        one.tell(theta, episodes)
    obs = torch.zeros(2, 3, 4)
    each = one.theta.unsqueeze(1).expand(-1, 3, -1)
    values = [one.value(each, obs, torch.full((2, 3), action)) for action in (0, 1)]
    assert values[0].shape == (2, 3)
    assert not torch.allclose(*values)


def test_discrete_actions_are_seen_one_hot():
    one = learner("pavf", "CartPole-v1", seeds=[0])
    obs, theta, actions = torch.randn(1, 5, 4), torch.randn(1, 5, 10), torch.tensor([[0, 1, 1, 0, 1]])
    hot = torch.eye(2)[actions]
    expected = one.critic.network.module(one.phi[0].clone())(torch.cat([obs, hot, theta], -1)[0]).squeeze(-1)
    torch.testing.assert_close(one.value(theta, obs, actions)[0], expected.detach())


def lived(one, lives, diverged=None) -> None:
    """Tell one episode after the other; episode k observes k everywhere, and its policy is all k."""
    for k, life in enumerate(lives):
        theta = torch.full((1, 1, one.policy.num_parameters), float(k))
        odd = None if diverged is None else [diverged[k]]
        one.tell(theta, episodes_by_hand([[1.0] * life], [[float(k)] * (life + 1)], diverged=odd))


@both_kinds
@pytest.mark.parametrize("diverged", [False, True], ids=["whole", "diverged"])
@pytest.mark.parametrize("capacity", [1000, 7])
def test_transitions_whose_policy_is_forgotten_are_never_drawn(kind, diverged, capacity):
    one = learner(kind, population=1, seeds=[0], policy_capacity=3, capacity=capacity, policy_steps=0)
    lives = [4, 2, 6, 3, 2, 2]
    lived(one, lives, [diverged] * len(lives))
    slots = drawn(one, 2000)
    episode = one.transitions.gather("obs", slots)[0, :, 0]
    policy = one.replay.theta(one.transitions.gather("policy", slots))[0, :, 0]
    assert set(episode.tolist()) == {3.0, 4.0, 5.0}
    assert torch.equal(episode, policy)


@both_kinds
def test_an_episode_longer_than_the_replay_leaves_its_end(kind):
    one = learner(kind, population=1, seeds=[0], capacity=3, policy_steps=0)
    one.tell(one.ask(), episodes_by_hand([[1.0, 2.0, 3.0, 4.0, 5.0]], terminated=[True]))
    assert stored(one)["reward"].tolist() == [3.0, 4.0, 5.0]
    assert stored(one)["terminated"].tolist() == [False, False, True]


@both_kinds
def test_transitions_are_drawn_uniformly(kind):
    one = learner(kind, population=1, seeds=[0], policy_steps=0)
    lived(one, [3, 1, 4])
    counts = torch.bincount(drawn(one, 8000)[0], minlength=8)
    assert len(counts) == 8
    assert (counts - 1000).abs().max() < 5 * 1000**0.5


@both_kinds
@pytest.mark.parametrize("life", [1, 3, 5, 10, 30])
def test_one_round_of_updates_follows_every_so_many_steps_however_they_come(kind, life):
    one = learner(kind, population=1, seeds=[0], update_every=50, critic_steps=3, policy_steps=2)
    for _ in range(300 // life):
        one.tell(one.ask(), episodes_by_hand([[0.0] * life]))
    assert one.critic_adam.count.tolist() == [18]
    assert one.policy_adam.count.tolist() == [12]


@both_kinds
def test_a_seed_that_lives_longer_takes_more_rounds(kind):
    one = learner(kind, population=1, seeds=[0, 1, 2], update_every=5, critic_steps=1, policy_steps=1)
    one.tell(one.ask(), episodes_by_hand([[0.0] * 4, [0.0] * 23, [0.0] * 10]))
    assert one.critic_adam.count.tolist() == [0, 4, 2]
    assert one.policy_adam.count.tolist() == [0, 4, 2]


@pytest.mark.parametrize("importance", [True, False])
@pytest.mark.parametrize("task", ["LQR-v0", "CartPole-v1"])
def test_stochastic_policies_learn_with_and_without_importance_weights(task, importance):
    one, env = learner("pavf", task, stochastic=True, importance=importance), environment(task, 6)
    start = one.theta.clone()
    for _ in range(3):
        generation(one, env)
    assert one.theta.isfinite().all()
    assert one.phi.isfinite().all()
    assert (one.theta != start).all()


@pytest.mark.parametrize("task", ["LQR-v0", "CartPole-v1"])
def test_the_behaviours_log_probability_is_that_of_the_moment_it_acted(task):
    one, env = learner("pavf", task, stochastic=True, seeds=[0]), environment(task, 2)
    generation(one, env)  # so that the normaliser is no longer the identity
    mean, std = one.norm.mean.copy(), one.norm.std.copy()
    before = int(one.transitions.size[0])
    theta, episodes = play(one, env)
    one.tell(theta, episodes)
    flat, held = episodes.transitions(), {name: rows[before:] for name, rows in stored(one).items()}
    obs = torch.from_numpy(((flat["observation"] - mean) / std).astype(np.float32)).unsqueeze(-2)
    actions = torch.from_numpy(flat["action"]).unsqueeze(1)
    expected = one.policy.log_prob(theta[0, flat["row"]], obs, actions).squeeze(-1)
    torch.testing.assert_close(torch.from_numpy(held["log_prob"]), expected, rtol=1e-4, atol=1e-4)


def test_a_policy_climbs_the_value_of_its_states():
    # V(s, theta) = 2 w - 3 b by a linear critic that does not learn: every policy step has these signs
    one = learner("psvf", population=1, seeds=[0], critic_hidden=(), update_every=1, critic_steps=1, lr_critic=1e-12)
    with torch.no_grad():
        one.phi.zero_()
        one.phi[:, 1:3] = torch.tensor([2.0, -3.0])
    start = one.theta.clone()
    one.tell(one.ask(), episodes_by_hand([[0.0] * 10]))
    torch.testing.assert_close(one.theta - start, torch.tensor([[0.1, -0.1]]), rtol=0.01, atol=0)


def test_a_policy_climbs_through_its_action_and_through_the_critics_knowledge_of_it():
    # Q = 4 a - 2 b at the state 0: dQ/db = 4 (1 - tanh(b)^2) - 2, which is zero where tanh(b)^2 = 1/2
    one = learner("pavf", population=1, seeds=[0], critic_hidden=(), update_every=1, lr_critic=1e-12, lr_policy=0.02)
    with torch.no_grad():
        one.phi.zero_()
        one.phi[:, 1], one.phi[:, 3] = 4.0, -2.0
        one.theta.copy_(torch.tensor([[0.0, 0.5]]))
    for _ in range(3):
        one.tell(one.ask(), episodes_by_hand([[0.0] * 100]))
    assert float(one.theta[0, 1]) == pytest.approx(np.arctanh(0.5**0.5), abs=0.01)


ZIGZAG = [10.0, 12.0] * 5 + [10.0]  # mean 11 and deviation 1 before the last: normalised, -1 and 1 in turn


@both_kinds
def test_critics_see_normalised_observations(kind):
    # V = 5 s, reward 0, discount 1/2: the error is 5 s - 2.5 s' = 7.5 s, its gradient in the weight 15 s^2 = 15
    settings = {**CRITIC_ALONE, "normalize_observations": True, "update_every": 10}
    one = learner(kind, population=1, seeds=[0], critic_hidden=(), discount=0.5, **settings)
    with torch.no_grad():
        one.phi.zero_()
        one.phi[:, 0] = 5.0
    one.tell(one.ask(), episodes_by_hand([[0.0] * 10], [ZIGZAG]))
    assert float(one.critic_adam.mean[0, 0] / 0.1) == pytest.approx(15, rel=1e-4)


@both_kinds
def test_policies_climb_on_normalised_observations(kind):
    # PSVF: V = relu(s + w), so half the states have slope 1 in w. PAVF: Q = a = tanh(w s + b), slopes s that cancel.
    hidden = (1,) if kind == "psvf" else ()
    one = learner(kind, population=1, seeds=[0], critic_hidden=hidden, update_every=10, policy_batch=2000,
                  critic_steps=1, lr_critic=1e-12)  # fmt: skip
    with torch.no_grad():
        one.theta.zero_()
        one.phi.copy_(torch.tensor([[1.0, 1.0, 0.0, 0.0, 1.0, 0.0]] if kind == "psvf" else [[0.0, 1.0, 0.0, 0.0, 0.0]]))
    one.tell(one.ask(), episodes_by_hand([[0.0] * 10], [ZIGZAG]))
    slope = -float(one.policy_adam.mean[0, 0] / 0.1)
    assert slope == pytest.approx(0.5 if kind == "psvf" else 0.0, abs=0.1)


@both_kinds
def test_rounds_on_the_replay_alone_move_active_seeds_and_meet_no_environment(kind):
    one, env = learner(kind, seeds=[0, 1]), environment("LQR-v0", 4)
    generation(one, env)
    before, steps = [of_seed(one, s) for s in range(2)], one.steps.tolist()
    one.learn_round(np.array([True, False]))
    assert_same(of_seed(one, 1), before[1])
    assert not torch.equal(one.theta[0], before[0]["theta"])
    assert not torch.equal(one.phi[0], before[0]["phi"])
    one.learn_round()
    assert not torch.equal(one.theta[1], before[1]["theta"])
    assert one.steps.tolist() == steps
