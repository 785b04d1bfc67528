"""Learning in an environment counts its own steps, is not changed by being watched, and resumes bit for bit."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from policy_helpers import KINDS, assert_same, environment, learner

from mindworks.envs import rollout
from mindworks.errors import InputError
from mindworks.lab import checkpoint
from mindworks.policies import Training, ascend, evaluate
from mindworks.policies.learner import Learner


class Counting:
    """An environment that counts the steps its rows take and notes the seeds of its episodes."""

    def __init__(self, env) -> None:
        self.env, self.taken, self.seeds = env, np.zeros(env.num_envs, np.int64), []

    def __getattr__(self, name: str):
        return getattr(self.env, name)

    def reset(self, seeds):
        self.seeds += list(seeds)
        return self.env.reset(seeds)

    def step(self, actions, alive):
        self.taken += alive
        return self.env.step(actions, alive)


def training(kind: str, task: str = "CartPole-v1", *, steps=60, evaluate_every=20, **config) -> Training:
    one = learner(kind, task, **config)
    seeds = len(one.streams)
    env = Counting(environment(task, seeds * one.config.population))
    return Training(one, env, Counting(environment(task, seeds * 2)), steps=steps, evaluate_every=evaluate_every)


def finish(run: Training) -> Training:
    while not run.done:
        run.advance()
    return run


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_the_environment_took_and_stop_when_each_seed_has_enough(kind):
    run = training(kind)
    rounds = 0
    while not run.done:
        before, active = run.learner.steps.copy(), run.active.copy()
        taken = run.env.taken.copy()
        run.advance()
        rounds += 1
        moved = (run.env.taken - taken).reshape(3, 2).sum(1)
        np.testing.assert_array_equal(run.learner.steps - before, moved)
        assert (moved[~active] == 0).all()
        assert (moved[active] >= 2).all()
        assert (before[active] < 60).all()
    assert (run.learner.steps >= 60).all()
    assert run.env.taken.sum() == run.learner.steps.sum()
    assert run.learner.episodes.max() == 2 * rounds


@pytest.mark.parametrize("kind", KINDS)
def test_curves_have_a_point_whenever_a_multiple_is_passed_and_one_at_the_end(kind):
    run = training(kind, steps=170, evaluate_every=50)
    expected: list[list[int]] = [[], [], []]
    while not run.done:
        before, watched = run.learner.steps.copy(), run.evaluation_env.taken.copy()
        run.advance()
        watched = (run.evaluation_env.taken - watched).reshape(3, 2).min(1) > 0
        for s, (then, now) in enumerate(zip(before, run.learner.steps, strict=True)):
            due = now > then and (now // 50 > then // 50 or now >= 170)
            expected[s] += [int(now)] if due else []
            assert watched[s] == due
    assert [[step for step, _ in curve] for curve in run.curves] == expected
    assert [curve[-1][0] for curve in run.curves] == run.learner.steps.tolist()
    assert all(1 <= value <= 12 for curve in run.curves for _, value in curve)
    assert len(set(run.evaluation_env.seeds)) == len(run.evaluation_env.seeds), "an evaluation met an old episode"


@pytest.mark.parametrize("kind", KINDS)
def test_watching_changes_nothing(kind):
    often, never = finish(training(kind, evaluate_every=1)), finish(training(kind, evaluate_every=10**9))
    assert_same(often.learner.state(), never.learner.state())
    assert all(len(curve) > 1 for curve in often.curves)
    assert all(len(curve) == 1 for curve in never.curves)
    assert [curve[-1] for curve in often.curves] == [curve[-1] for curve in never.curves]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("storage", ["float32", "seed"])
def test_a_run_resumes_bit_for_bit(kind, storage, tmp_path: Path):
    whole = training(kind, storage=storage)
    for _ in range(2):
        whole.advance()
    assert not whole.done
    checkpoint.save(tmp_path, whole.state())
    resumed = training(kind, storage=storage)
    resumed.load(checkpoint.load(tmp_path))
    assert_same(resumed.state(), whole.state())
    assert_same(finish(resumed).state(), finish(whole).state())


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_has_the_same_curve_in_any_company(kind):
    together, alone = finish(training(kind, "LQR-v0")), finish(training(kind, "LQR-v0", seeds=[1]))
    assert [step for step, _ in together.curves[1]] == [step for step, _ in alone.curves[0]]
    np.testing.assert_allclose(together.curves[1], alone.curves[0], rtol=1e-3)


def test_the_survival_bonus_is_part_of_evaluation():
    plain, without = learner("pssvf", "CartPole-v1"), learner("pssvf", "CartPole-v1", survival_bonus=1.0)
    env = environment("CartPole-v1", 6)
    np.testing.assert_array_equal(evaluate(plain, plain.theta, env), evaluate(without, without.theta, env))
    assert evaluate(without, without.theta, env).min() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_plays_the_greedy_policy_on_its_own_episodes(kind):
    one, env = learner(kind, "CartPole-v1"), environment("CartPole-v1", 12)
    before = deepcopy(one.state())
    returns = evaluate(one, one.theta, env, round=3)
    assert returns.shape == (3, 4)
    np.testing.assert_array_equal(evaluate(one, one.theta, env, round=3), returns)
    assert_same(one.state(), before)
    greedy = one.policy.actor(one.theta.repeat_interleave(4, 0), one.norm)
    seeds = np.concatenate([np.random.default_rng((s, 7, 3)).integers(0, 2**62, 4) for s in (0, 1, 2)])
    np.testing.assert_array_equal(rollout(env, greedy, seeds).returns.reshape(3, 4), returns)
    assert (evaluate(one, one.theta, env, round=4) != returns).any()


def test_evaluation_of_one_seed_does_not_depend_on_the_others():
    together, alone = learner("pssvf"), learner("pssvf", seeds=[2])
    many = evaluate(together, together.theta, environment("LQR-v0", 12))
    one = evaluate(alone, alone.theta, environment("LQR-v0", 4))
    np.testing.assert_allclose(many[2], one[0], rtol=1e-6)
    idle = evaluate(together, together.theta, environment("LQR-v0", 12), active=np.array([False, True, False]))
    np.testing.assert_array_equal(idle[1], many[1])
    assert (idle[[0, 2]] == 0).all()


def test_many_policies_share_the_rows_in_equal_parts():
    one, env = learner("pssvf", seeds=[0, 1]), environment("LQR-v0", 12)
    theta = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    returns = evaluate(one, theta, env)
    for m in range(3):
        single = evaluate(one, theta[:, m], env)
        np.testing.assert_array_equal(returns[:, 2 * m : 2 * m + 2], single[:, 2 * m : 2 * m + 2])


def rows(training_rows: int, evaluation_rows: int, **kwargs) -> Training:
    settings = {"steps": 10, "evaluate_every": 5, **kwargs}
    return Training(
        learner("pssvf"), environment("LQR-v0", training_rows), environment("LQR-v0", evaluation_rows), **settings
    )


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: rows(5, 3), "env.*6.*5"),
        (lambda: rows(6, 4), "evaluation_env.*3.*4"),
        (lambda: rows(6, 3, steps=0), "steps.*0"),
        (lambda: rows(6, 3, evaluate_every=0), "evaluate_every.*0"),
        (lambda: evaluate(learner("pssvf"), torch.zeros(3, 4, 2), environment("LQR-v0", 6)), "theta.*2.*4"),
        (lambda: evaluate(learner("pssvf"), torch.zeros(3, 2), environment("LQR-v0", 5)), "env.*3.*5"),
        (lambda: ascend(lambda t: t.sum(-1), torch.zeros(2), steps=-1, lr=0.1), "steps.*-1"),
        (lambda: ascend(lambda t: t.sum(-1), torch.zeros(2), steps=1, lr=0.0), "lr"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(call, names):
    with pytest.raises(InputError, match=names):
        call()


CENTRE = torch.tensor([1.0, -2.0, 0.5])


def hill(theta: torch.Tensor) -> torch.Tensor:
    return 3 - (torch.tensor([1.0, 4.0, 0.5]) * (theta - CENTRE) ** 2).sum(-1)


def test_ascent_climbs_a_quadratic_to_its_top_and_leaves_its_input_alone():
    start = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    kept = start.clone()
    top = ascend(hill, start, steps=600, lr=0.05)
    torch.testing.assert_close(top, CENTRE.expand(2, 3, 3), rtol=0, atol=1e-3)
    assert torch.equal(start, kept)
    assert not top.requires_grad
    assert ascend(hill, start[0, 0], steps=1, lr=0.05).shape == (3,)


def test_no_steps_give_a_copy():
    start = torch.zeros(2, 3)
    same = ascend(hill, start, steps=0, lr=0.1)
    assert torch.equal(same, start)
    same += 1
    assert (start == 0).all()


def test_every_vector_climbs_as_if_it_were_alone():
    start = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [1e-3], [10.0], [1.0]])
    together = ascend(hill, start, steps=50, lr=0.1)
    for i in range(4):
        torch.testing.assert_close(together[i], ascend(hill, start[i], steps=50, lr=0.1), rtol=0, atol=1e-6)


def test_the_callback_sees_each_step_before_it_is_taken():
    start, calls = torch.zeros(2, 3), []
    end = ascend(hill, start, steps=5, lr=0.1, callback=lambda *seen: calls.append(seen))
    assert [step for step, _, _ in calls] == [0, 1, 2, 3, 4]
    assert torch.equal(calls[0][1], start)
    for (_, theta, value), following in zip(calls, [theta for _, theta, _ in calls[1:]] + [end], strict=True):
        torch.testing.assert_close(value, hill(theta))
        assert not value.requires_grad
        assert (hill(following) > value).all()
    assert not torch.equal(calls[-1][1], end)


def test_ascent_climbs_a_learners_value_without_touching_the_learner():
    one: Learner = learner("pssvf")
    before, start = deepcopy(one.state()), one.ask().clone()
    top = ascend(one.value, start, steps=20, lr=0.05)
    assert (one.value(top) > one.value(start)).all()
    after = one.state()
    for name in ("theta", "phi"):
        assert torch.equal(after[name], before[name])
    assert not one.phi.requires_grad
