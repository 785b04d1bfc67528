"""Tasks with delayed rewards: closed forms, walks by hand, what chance decides, and who counts as optimal."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.core.finite_mdp import garnet
from mindworks.errors import InputError
from mindworks.tabular.delayed_tasks import (
    TabularTask,
    choice,
    corridor,
    delayed_choice,
    noisy_bandit,
    random_task,
    slippery_cliff,
    tabulate,
    trace_back,
)

TASKS = [
    corridor(5),
    choice(4),
    choice(4, noise=1.0),
    noisy_bandit(3),
    trace_back(3, 4),
    slippery_cliff(3, 4),
    random_task(0, states=5, actions=3, branching=2),
]


def walk(task: TabularTask, actions: list[int]) -> list[float]:
    """The rewards of `actions` from the start; the last one must end the episode."""
    state, rewards = np.zeros(1, np.int64), []
    for i, action in enumerate(actions):
        state, reward, ended = task.step(state, np.array([action]), np.array([0.5]))
        rewards.append(float(reward[0]))
        assert bool(ended[0]) == (i == len(actions) - 1)
    return rewards


def test_the_corridor_pays_one_at_its_end_and_half_at_every_exit():
    task = corridor(60)
    assert (task.states, task.actions, task.horizon) == (60, 2, 60)
    ahead = 0.99 ** np.arange(59, -1, -1)
    np.testing.assert_allclose(task.optimal_q, np.stack([np.full(60, 0.5), ahead], -1), rtol=1e-12)
    assert ahead[0] > 0.5
    assert (task.optimal_actions == [False, True]).all()
    assert walk(task, [1] * 60) == [0.0] * 59 + [1.0]
    assert walk(task, [1, 1, 0]) == [0.0, 0.0, 0.5]
    assert task.guide is not None
    np.testing.assert_allclose(task.guide.prod(0), [0.03**60, 0.97**60])


def test_a_choice_is_worth_what_comes_after_the_delay():
    task = choice(50)
    assert task.states == 1 + 2 * 50
    np.testing.assert_allclose(task.optimal_q[0], [0.1, 0.99**50], rtol=1e-12)
    np.testing.assert_allclose(choice(50, noise=3.0).optimal_q, task.optimal_q, rtol=1e-9, atol=1e-12)
    assert task.optimal_actions[1:].all()  # nothing matters after the choice
    assert walk(task, [0, 1, *[0] * 49]) == [0.1] + [0.0] * 50
    assert walk(task, [1, *[0] * 50]) == [0.0] * 50 + [1.0]


def test_the_noisy_arm_is_worse_on_average_and_better_when_lucky():
    task = noisy_bandit(20)
    np.testing.assert_allclose(task.optimal_q[0], [0.5 * 0.99**20, 0.4 * 0.99**20], rtol=1e-12)
    assert task.optimal_actions[0].tolist() == [True, False]
    assert set(task.reward[task.probability > 0].tolist()) == {0.0, 0.5, 2.0}


def test_a_choice_among_three_with_prizes_of_ones_own():
    task = delayed_choice((1.0, 0.0, 0.0), [[(1.0, 0.0)], [(0.5, 4.0), (0.5, 0.0)], [(0.25, 6.0), (0.75, 1.0)]], 2, 0.5)
    np.testing.assert_allclose(task.optimal_q[0], [1.0, 2 / 4, 2.25 / 4])


def test_only_the_first_moves_are_rewarded_in_the_end():
    task = trace_back(3, 4)
    for moves in itertools.product(range(4), repeat=4):
        assert walk(task, list(moves)) == [0.0] * 3 + [float(moves[:2] == (2, 0))]
    assert task.optimal_q[0].max() == pytest.approx(0.99**3)
    assert task.optimal_actions[0].tolist() == [False, False, True, False]
    # one cell: a state for every time, but for the first two of them, kept or not
    assert trace_back(1, 7).states == 1 + 2 * 6
    assert trace_back(1, 3, code=(1, 1, 1)).optimal_q[0].argmax() == 1


def test_without_slipping_the_cliff_is_passed_by_the_shortest_way():
    task = slippery_cliff(4, 8, slip=0.0)
    assert task.optimal_q[0].max() == pytest.approx(-(1 - 0.99**9) / 0.01)
    assert walk(task, [2, *[0] * 7, 3]) == [-1.0] * 9
    assert walk(task, [2, 0, 3]) == [-1.0, -1.0, -50.0]
    careful = slippery_cliff(4, 8, slip=0.2).optimal_q.argmax(-1)
    assert (careful == 2).sum() > (task.optimal_q.argmax(-1) == 2).sum()  # up, away from the edge


def test_a_random_task_is_its_garnet_with_a_coin_on_every_reward():
    process = garnet(1, 6, 3, discount=0.9, seeds=[4], branching=2)
    for noise in (0.0, 2.0):
        task = random_task(4, states=6, actions=3, branching=2, noise=noise)
        torch.testing.assert_close(torch.from_numpy(task.optimal_q), process.optimal_action_value()[0, 0])
    assert task.reward.std(-1).min() >= 2.0 - 1e-12
    assert (task.successor < 6).all()


@pytest.mark.parametrize("task", TASKS)
def test_branches_come_as_often_as_their_probability_says(task):
    count = 20_000
    uniform = (np.arange(count) + 0.5) / count
    for state, action in itertools.product(range(task.states), range(task.actions)):
        pair = np.full(count, state), np.full(count, action)
        following, reward, ended = task.step(*pair, uniform)
        assert (ended == (following == task.states)).all()
        expected: dict[tuple[int, float], float] = {}
        for p, s, r in zip(
            *(part[state, action] for part in (task.probability, task.successor, task.reward)), strict=True
        ):
            expected[int(s), float(r)] = expected.get((int(s), float(r)), 0.0) + float(p)
        for (s, r), p in expected.items():
            assert abs(((following == s) & (reward == r)).sum() - p * count) <= 2 * task.probability.shape[-1]


def test_what_has_no_probability_is_never_drawn():
    tenths = np.array([[[0.1] * 10 + [0.0]]])
    assert tenths.cumsum()[-1] < 1
    task = TabularTask(tenths, np.ones((1, 1, 11), np.int64), np.arange(11.0).reshape(1, 1, 11), 0.9, 1)
    zeros = np.zeros(2, np.int64)
    assert task.step(zeros, zeros, np.array([np.nextafter(1.0, 0), 0.0]))[1].tolist() == [9.0, 0.0]
    behind = TabularTask(np.array([[[0.0, 1.0]]]), np.ones((1, 1, 2), np.int64), np.array([[[5.0, 7.0]]]), 0.9, 1)
    assert behind.step(zeros, zeros, np.array([0.0, 0.9]))[1].tolist() == [7.0, 7.0]


def test_rows_step_side_by_side_as_they_do_alone():
    task, rng = slippery_cliff(), np.random.default_rng(0)
    state, action = rng.integers(task.states, size=50), rng.integers(4, size=50)
    uniform = rng.random(50)
    together = task.step(state, action, uniform)
    for i in range(50):
        alone = task.step(state[i : i + 1], action[i : i + 1], uniform[i : i + 1])
        assert [float(part[0]) for part in alone] == [float(part[i]) for part in together]


def test_the_optimum_is_optimal_and_a_tie_with_a_worse_action_is_not():
    for task in TASKS:
        best = task.optimal_q[0].max()
        assert task.greedy_is_optimal(np.where(task.optimal_actions, 1.0, 0.0))
        assert task.greedy_value(np.where(task.optimal_actions, 1.0, 0.0)) == pytest.approx(best, abs=1e-12)
        assert not task.greedy_is_optimal(np.zeros((task.states, task.actions)))
    task = corridor(3)
    q = task.optimal_q.copy()
    q[2] = 1.0  # a tie at the last step only
    assert not task.greedy_is_optimal(q)
    assert task.greedy_value(q) == pytest.approx(0.99**2 * 0.75)
    q[0, 0] = 2.0
    q = np.stack([q, task.optimal_q])
    assert task.greedy_is_optimal(q).tolist() == [False, True]
    np.testing.assert_allclose(task.greedy_value(q), [0.5, 0.99**2])


def test_what_greedy_actions_do_not_reach_does_not_count():
    task = trace_back(3, 4)
    q = task.optimal_q.copy()
    off = task.successor[0, 3, 0]  # the code is lost there, so all that follows is optimal
    q[off] = [0.0, 3.0, 0.0, 0.0]
    assert task.greedy_is_optimal(q)
    back = tabulate("a", 2, lambda s, a: [(1.0, None, 1.0)] if (s, a) == ("a", 0) else [(1.0, "b", a)], 0.5, 9)
    q = np.array([[1.0, 0.0], [1.0, 0.0]])  # "b" is wrong, and "a" goes home at once
    assert not back.optimal_actions[1, 0]
    assert not back.greedy_is_optimal(q)  # yet worse than staying in "b", which pays 1 for ever
    q[0] = [0.0, 1.0]
    assert not back.greedy_is_optimal(q)
    q[1] = [0.0, 1.0]
    assert back.greedy_is_optimal(q)


@given(index=st.integers(0, len(TASKS) - 1), seed=st.integers(0, 2**32 - 1), near=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_greedy_policy_is_optimal_exactly_when_it_is_worth_the_optimum(index, seed, near):
    task, rng = TASKS[index], np.random.default_rng(seed)
    q = rng.integers(0, 3, size=(6, task.states, task.actions)).astype(float)
    if near:  # so that both verdicts occur
        wrong = rng.random((*q.shape[:2], 1)) < 0.1
        q = np.where(wrong, q, task.optimal_actions * 1.0)
    optimal, value = task.greedy_is_optimal(q), task.greedy_value(q)
    best = task.optimal_q[0].max()
    assert (optimal == (value >= best - 1e-9)).all()
    assert (value <= best + 1e-9).all()
    assert [bool(task.greedy_is_optimal(row)) for row in q] == optimal.tolist()


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: corridor(0), "length.*0"),
        (lambda: corridor(71), "length 71"),
        (lambda: corridor(5, guide_exit=1.5), "guide_exit.*1.5"),
        (lambda: choice(0), "delay.*0"),
        (lambda: choice(50, lure=0.7), "lure.*0.7"),
        (lambda: choice(5, noise=-1.0), "noise.*-1"),
        (lambda: delayed_choice((1.0, 0.0), [[(1.0, 0.0)]], 3), "later.*2"),
        (lambda: delayed_choice((1.0,), [[(0.7, 0.0)]], 3), "probability"),
        (lambda: noisy_bandit(3, chance=1.2), "chance.*1.2"),
        (lambda: noisy_bandit(3, chance=0.3), "win.*0.6"),
        (lambda: trace_back(0, 5), "size.*0"),
        (lambda: trace_back(3, 1), "horizon.*1"),
        (lambda: trace_back(3, 4, code=(4,)), "code.*4"),
        (lambda: slippery_cliff(1, 8), "rows.*1"),
        (lambda: slippery_cliff(slip=-0.1), "slip.*-0.1"),
        (lambda: random_task(0, noise=-1.0), "noise.*-1"),
        (lambda: tabulate(0, 0, lambda s, a: [(1.0, None, 0.0)], 0.9, 1), "actions.*0"),
        (lambda: tabulate(0, 1, lambda s, a: [(1.0, None, 0.0)], 1.0, 1), "discount.*1"),
        (lambda: tabulate(0, 1, lambda s, a: [(1.0, None, 0.0)], 0.9, 0), "horizon.*0"),
        (lambda: TabularTask(np.ones((2, 1, 1)), np.full((2, 1, 1), 3), np.zeros((2, 1, 1)), 0.9, 1), "successor.*3"),
        (lambda: TabularTask(np.ones((2, 1, 1)), np.zeros((2, 1), int), np.zeros((2, 1, 1)), 0.9, 1), "successor"),
        (lambda: TabularTask(np.ones((2, 1)), np.zeros((2, 1), int), np.zeros((2, 1)), 0.9, 1), "probability"),
        (lambda: corridor(3).greedy_value(np.zeros((2, 2))), r"q must.*\(2, 2\)"),
        (lambda: corridor(3).greedy_is_optimal(np.zeros((4, 3, 3))), r"q must.*\(4, 3, 3\)"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
