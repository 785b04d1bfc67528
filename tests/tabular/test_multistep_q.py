"""Multi-step Q-learning in tables: a plain learner step by step, closed forms, resuming, rows alone and in company."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.core.targets import Target
from mindworks.errors import InputError
from mindworks.tabular.delayed_tasks import (
    TabularTask,
    choice,
    corridor,
    noisy_bandit,
    random_task,
    slippery_cliff,
    tabulate,
    trace_back,
)
from mindworks.tabular.multistep_q import AveragedHighway, MultistepQ, Setting, episodes_to_optimal, outcomes

KINDS = ("one_step", "n_step", "peng", "retrace", "tree_backup", "watkins", "highway", "highway_soft")


class PlainQ:
    """One row in plain loops, from the definitions: the oracle of `MultistepQ` for the targets written out below."""

    def __init__(self, task: TabularTask, setting: Setting, seed: int, replays: int, capacity: int) -> None:
        self.task, self.setting, self.replays, self.capacity = task, setting, replays, capacity
        self.rng = np.random.default_rng(seed)
        self.q = np.zeros((task.states + 1, task.actions))
        self.episodes: list[list[tuple]] = []

    def run(self, count: int) -> None:
        for e in range(count):
            head, uniform = self.rng.random(1 + self.replays), self.rng.random((self.task.horizon, 2))
            self.episodes.append(self.play(e, head[0] < self.setting.guided, uniform))
            held = min(e + 1, self.capacity)
            if isinstance(self.setting.target, AveragedHighway):
                self.sweep_all()
                continue
            slots = [e % self.capacity, *(int(u * held) for u in head[1:])]
            for slot in slots:
                self.sweep(next(self.episodes[i] for i in range(e, -1, -1) if i % self.capacity == slot))

    def play(self, e: int, guided: bool, uniform: np.ndarray) -> list[tuple]:
        task, state, steps = self.task, 0, []
        epsilon = self.setting.epsilon * self.setting.epsilon_decay**e
        for u, v in uniform:
            greedy = [float(x == max(self.q[state])) for x in self.q[state]]
            chance = [(1 - epsilon) * g / sum(greedy) + epsilon / task.actions for g in greedy]
            if guided:
                chance = list(task.guide[state])
            action = next(a for a in range(task.actions) if sum(chance[: a + 1]) > u * sum(chance))
            following, reward, ended = (
                part[0] for part in task.step(np.array([state]), np.array([action]), np.array([v]))
            )
            steps.append((state, action, float(reward), int(following), bool(ended), chance[action]))
            state = int(following)
            if ended:
                break
        return steps

    def returns(self, steps: list[tuple], t: int) -> list[float]:
        """The k-step returns from step t, k = 1..lookahead; past the end of the episode that of the whole rest."""
        found = []
        for k in range(1, self.setting.target.lookahead + 1):
            total, weight = 0.0, 1.0
            for _, _, reward, _, ended, _ in steps[t : t + k]:
                total, weight = total + weight * reward, weight * self.task.discount * (not ended)
            found.append(total + weight * max(self.q[steps[t : t + k][-1][3]]))
        return found

    def target(self, steps: list[tuple], t: int) -> float:
        kind = self.setting.target.kind
        if kind == "one_step":
            return self.returns(steps, t)[0]
        if kind == "n_step":
            return self.returns(steps, t)[-1]
        if kind == "highway":
            return max(self.returns(steps, t))
        assert kind == "retrace"
        return self.retrace(steps, t, self.setting.target.lookahead)

    def retrace(self, steps: list[tuple], t: int, left: int) -> float:
        target, (_, _, reward, following, ended, _) = self.setting.target, steps[t]
        row = self.q[following]
        pi = [(1 - target.epsilon) * (x == max(row)) / sum(row == max(row)) + target.epsilon / len(row) for x in row]
        value = reward + (not ended) * self.task.discount * sum(p * x for p, x in zip(pi, row, strict=True))
        if ended or left == 1 or t + 1 == len(steps):
            return value
        action, behavior = steps[t + 1][1], steps[t + 1][5]
        trace = target.lam * min(1.0, pi[action] / behavior)
        return value + self.task.discount * trace * (self.retrace(steps, t + 1, left - 1) - row[action])

    def sweep(self, steps: list[tuple]) -> None:
        targets = defaultdict(list)
        for t, (state, action, *_) in enumerate(steps):
            targets[state, action].append(self.target(steps, t))
        for pair, ys in targets.items():
            self.q[pair] += self.setting.lr * (sum(ys) / len(ys) - self.q[pair])

    def sweep_all(self) -> None:
        target, returns = self.setting.target, defaultdict(list)
        for i, steps in list(enumerate(self.episodes))[-self.capacity :]:
            group = i % self.capacity * target.groups // self.capacity
            for t, (state, action, *_) in enumerate(steps):
                returns[state, action, group].append(self.returns(steps, t))
        best: dict[tuple[int, int], float] = {}
        for (state, action, _), rows in returns.items():
            best[state, action] = max(best.get((state, action), -math.inf), float(np.mean(rows, 0).max()))
        for pair, y in best.items():
            self.q[pair] += self.setting.lr * (y - self.q[pair])


@pytest.mark.parametrize(
    "setting",
    [
        Setting(Target("one_step"), lr=0.3),
        Setting(Target("n_step", lookahead=3), lr=1.0, epsilon=0.4),
        Setting(Target("highway", lookahead=4), lr=0.5, epsilon=0.8, epsilon_decay=0.7),
        Setting(Target("highway", lookahead=100), lr=0.2),
        Setting(Target("retrace", lookahead=5, lam=0.8, epsilon=0.2), lr=0.5, epsilon=0.3),
        Setting(AveragedHighway(lookahead=4), lr=0.5),
        Setting(AveragedHighway(lookahead=100, groups=3), lr=1.0, epsilon=0.5),
    ],
)
@pytest.mark.parametrize(
    "task", [slippery_cliff(3, 4), random_task(1, states=4, actions=2, branching=2, horizon=9)], ids=["cliff", "random"]
)
def test_the_table_is_that_of_plain_loops(task, setting):
    # states recur within episodes, some episodes are truncated, and old ones are overwritten
    learner = MultistepQ(task, [setting], [3, 8], replays=2, capacity=5)
    learner.run_episodes(12)
    for n, seed in enumerate([3, 8]):
        plain = PlainQ(task, setting, seed, replays=2, capacity=5)
        plain.run(12)
        np.testing.assert_allclose(learner.q[0, n], plain.q[:-1], rtol=1e-10, atol=1e-12)
        assert np.abs(plain.q).max() > 0.1


def test_guided_episodes_follow_the_guide():
    task, setting = corridor(6, guide_exit=0.2), Setting(Target("retrace", lookahead=6), guided=0.5)
    learner = MultistepQ(task, [setting], [1], replays=3, capacity=40)
    history = learner.run_episodes(40)
    plain = PlainQ(task, setting, 1, replays=3, capacity=40)
    plain.run(40)
    np.testing.assert_allclose(learner.q[0, 0], plain.q[:-1], rtol=1e-10, atol=1e-12)
    earned = [sum(0.99**t * step[2] for t, step in enumerate(steps)) for steps in plain.episodes]
    np.testing.assert_allclose(history.returns[:, 0, 0], earned, rtol=1e-12)
    behaviors = {round(step[5], 9) for steps in plain.episodes for step in steps}
    assert {0.2, 0.8, 0.95} <= behaviors
    stored = MultistepQ(task, [Setting(guided=1.0)], range(200), capacity=1)
    stored.run_episodes(1)
    length = stored.state()["stored"]["length"].ravel()
    assert abs((length == 1).mean() - 0.2) < 5 * math.sqrt(0.2 * 0.8 / 200)


def test_the_first_episode_moves_every_kind_as_far_as_it_looks():
    # one action, five steps, a reward of 1 at the end
    task = tabulate(0, 1, lambda s, a: [(1.0, s + 1 if s < 4 else None, float(s == 4))], 0.9, 9)
    expected = {
        "one_step": [0, 0, 0, 0, 1],
        "n_step": [0, 0, 0.81, 0.9, 1],
        "highway": [0, 0, 0.81, 0.9, 1],
        "peng": [0, 0, 0.81 * 0.25, 0.9 * 0.5, 1],
        "watkins": [0, 0, 0.81 * 0.25, 0.9 * 0.5, 1],
    }
    for kind, row in expected.items():
        learner = MultistepQ(task, [Setting(Target(kind, lookahead=3, lam=0.5), lr=0.5)], [0], replays=0)
        learner.run_episodes(1)
        np.testing.assert_allclose(learner.q[0, 0, :, 0], 0.5 * np.array(row), rtol=1e-12)
    learner = MultistepQ(task, [Setting(AveragedHighway(lookahead=3), lr=0.5)], [0])
    learner.run_episodes(1)
    np.testing.assert_allclose(learner.q[0, 0, :, 0], 0.5 * np.array(expected["highway"]), rtol=1e-12)


def test_a_group_for_every_episode_is_the_plain_highway_of_all_that_is_stored():
    task = choice(4, noise=1.0)  # no state recurs within an episode
    learner = MultistepQ(task, [Setting(AveragedHighway(lookahead=9, groups=8), lr=1.0)], [5], capacity=8)
    learner.run_episodes(7)
    plain = PlainQ(task, Setting(Target("highway", lookahead=9), lr=1.0), 5, replays=4, capacity=8)
    before = learner.q[0, 0].copy()
    learner.run_episodes(1)
    stored = {name: values[0] for name, values in learner.state()["stored"].items()}
    plain.q[:-1], best = before, defaultdict(lambda: -math.inf)
    for k, length in enumerate(stored["length"]):
        names = ("state", "action", "reward", "following", "discount", "behavior")
        steps = [
            (s, a, r, f, d == 0, b) for s, a, r, f, d, b in zip(*(stored[n][k, :length] for n in names), strict=True)
        ]
        for t, (state, action, *_) in enumerate(steps):
            best[state, action] = max(best[state, action], plain.target(steps, t))
    for pair, y in best.items():
        assert learner.q[0, 0][pair] == pytest.approx(y, abs=1e-12)


@given(
    kind=st.sampled_from(["one_step", "n_step", "peng", "highway", "highway_soft", "averaged"]),
    seed=st.integers(0, 2**32 - 1),
    lr=st.floats(0.05, 1.0),
    lookahead=st.integers(1, 12),
)
@settings(max_examples=15, deadline=None)
def test_without_chance_nothing_is_overestimated(kind, seed, lr, lookahead):
    target = AveragedHighway(lookahead) if kind == "averaged" else Target(kind, lookahead=lookahead)
    for task in (corridor(6), trace_back(2, 4)):
        learner = MultistepQ(task, [Setting(target, lr=lr, epsilon=0.5)], [seed], replays=1)
        learner.run_episodes(15)
        assert (learner.q[0, 0] <= task.optimal_q + 1e-12).all()


def test_luck_misleads_the_hard_gate_and_averaging_undoes_it():
    task, sure, mean = noisy_bandit(4, sure=0.7), 0.7 * 0.99**4, 0.4 * 0.99**4
    targets = (Target("highway", lookahead=5), AveragedHighway(lookahead=5), Target("highway_soft", 5, sharpness=0.0))
    rows = [Setting(target, lr=lr, epsilon=1.0) for target, lr in zip(targets, (0.3, 1.0, 0.1), strict=True)]
    learner = MultistepQ(task, rows, range(5), capacity=400)
    history = learner.run_episodes(400)
    noisy = learner.q[:, :, 0, 1]
    assert noisy[0].min() > sure
    # Some 200 visits of a reward of deviation 0.8; both actions of the delay split them, and the luckier one counts.
    assert (noisy[1] > mean - 4 * 0.8 / math.sqrt(200)).all()
    assert (noisy[1] < mean + 4 * 0.8 / math.sqrt(100)).all()
    assert noisy[2].mean() < noisy[0].mean()
    assert np.abs(learner.q[:, :, 0, 0] - sure).max() < 1e-9
    assert history.optimal[-1].mean(-1).tolist()[:2] == [0.0, 1.0]
    np.testing.assert_allclose(learner.greedy_value()[:2], [[mean] * 5, [sure] * 5])


def test_the_lean_of_averages_falls_with_visits():
    # Step 1 of 10 is a coin of +-1 over a chain of values of 0: every depth averages another sum of coins.
    def coins(state: int, action: int) -> list:
        return [(0.5, state + 1 if state < 9 else None, sign) for sign in (-1.0, 1.0)]

    task, leans = tabulate(0, 1, coins, 0.99, 10), []
    for visits in (1, 25, 400):
        learner = MultistepQ(task, [Setting(AveragedHighway(lookahead=10), lr=1.0)], range(60), capacity=visits)
        learner._learn = lambda drawn: None  # values stay 0, so every return is unbiased
        learner.run_episodes(visits)
        learner._sweep_all(learner.settings[0].target, np.arange(60), visits)
        leans.append(float(learner.q[0, :, 0, 0].mean()))
    assert leans[0] > 1.0
    assert leans[1] == pytest.approx(leans[0] / 5, rel=0.25)
    assert leans[2] == pytest.approx(leans[0] / 20, rel=0.25)


def test_far_rewards_reach_the_start_at_once_only_through_the_gate():
    task = corridor(30)
    rows = [Setting(Target(kind, lookahead=30), lr=1.0, guided=1.0) for kind in ("highway", "n_step", "one_step")]
    history = MultistepQ(task, rows, range(100, 106)).run_episodes(50)
    highway, n_step, one_step = episodes_to_optimal(history.optimal)
    first = (history.returns[:, 0] > 0.99**30).argmax(0) + 1  # the guide has reached the end
    assert (highway == first).all()
    assert np.median(one_step) >= np.median(highway) + 5
    assert np.isinf(n_step).sum() >= 3


SETTINGS = [
    *(Setting(Target(kind, lookahead=5), lr=0.3 + 0.1 * i, epsilon=0.2) for i, kind in enumerate(KINDS)),
    Setting(Target("peng", lookahead=7, lam=0.3), epsilon_decay=0.9),
    Setting(Target("highway", lookahead=5), lr=0.9),
    Setting(AveragedHighway(lookahead=6, groups=2)),
]


@pytest.mark.parametrize("task", [slippery_cliff(3, 4), trace_back(3, 5), random_task(0, horizon=20)])
def test_a_row_is_the_same_alone_and_in_company_and_twice(task):
    together = MultistepQ(task, SETTINGS, [4, 1, 9], capacity=6)
    history = together.run_episodes(10)
    again = MultistepQ(task, SETTINGS, [4, 1, 9], capacity=6)
    again.run_episodes(10)
    assert np.array_equal(together.q, again.q)
    for c, setting in enumerate(SETTINGS):
        alone = MultistepQ(task, [setting], [1], capacity=6)
        part = alone.run_episodes(10)
        assert np.array_equal(alone.q[0, 0], together.q[c, 1])
        assert np.array_equal(part.returns[:, 0, 0], history.returns[:, c, 1])
        assert np.array_equal(part.optimal[:, 0, 0], history.optimal[:, c, 1])
    assert not np.array_equal(together.q[0, 0], together.q[0, 1])


def test_a_resumed_run_equals_an_unbroken_one():
    task = slippery_cliff(3, 4)
    unbroken = MultistepQ(task, SETTINGS, [2, 5], capacity=4)
    whole = unbroken.run_episodes(11)
    first = MultistepQ(task, SETTINGS, [2, 5], capacity=4)
    first.run_episodes(6)
    state = first.state()
    first.run_episodes(2)  # must not reach into what was saved
    second = MultistepQ(task, SETTINGS, [2, 5], capacity=4)
    second.load(state)
    rest = second.run_episodes(5)
    assert np.array_equal(second.q, unbroken.q)
    assert np.array_equal(rest.returns, whole.returns[6:])
    assert second.episodes == 11
    with pytest.raises(InputError, match="state"):
        MultistepQ(task, SETTINGS, [2]).load(state)


def test_replay_learns_from_what_is_stored_and_plays_nothing():
    learner = MultistepQ(corridor(8), [Setting(AveragedHighway(lookahead=8), lr=1.0, guided=0.5)], [3], capacity=40)
    learner.run_episodes(40)
    stored = learner.state()["stored"]
    learner.replay(8)
    settled = learner.q.copy()
    learner.replay(3)  # what is stored has one fixed point, and a step of size 1 stays there
    assert np.array_equal(learner.q, settled)
    assert learner.episodes == 40
    for name, values in learner.state()["stored"].items():
        assert np.array_equal(values, stored[name])


def test_replay_sweeps_as_after_an_episode():
    setting = Setting(Target("highway", lookahead=4), lr=0.5, epsilon=1.0)
    learner, plain = (MultistepQ(choice(4), [setting], [1], replays=2, capacity=3) for _ in range(2))
    for one in (learner, plain):
        one.run_episodes(3)
    learner.replay(2)
    for _ in range(2):
        plain._learn(np.stack([plain._generators[0].random(2)]))
    assert np.array_equal(learner.q, plain.q)
    assert not np.array_equal(learner.q, MultistepQ(choice(4), [setting], [1]).q)


def test_outcomes_are_those_of_a_plain_run():
    task = corridor(6)
    pair = [Setting(Target("highway"), lr=1.0, guided=0.5), Setting(Target("n_step"), lr=0.3, guided=0.5)]
    found = outcomes(MultistepQ(task, pair, [0, 4]), 40)
    plain = MultistepQ(task, pair, [0, 4])
    values, optimal, returns = [], [], []
    for i in range(40):
        history = plain.run_episodes(1)
        optimal.append(history.optimal[0])
        returns.append(history.returns[0])
        if i % 2 and i >= 20:
            values.append(plain.greedy_value())
    assert np.array_equal(found.episodes, episodes_to_optimal(np.array(optimal)))
    np.testing.assert_allclose(found.value, np.mean(values, 0), rtol=1e-12)
    np.testing.assert_allclose(found.bias, plain.q[:, :, 0].max(-1) - 0.99**5, rtol=1e-12)
    for c, n in ((0, 0), (0, 1)):
        first = next(i for i, row in enumerate(returns) if row[c, n] >= 0.99**5 - 1e-9) + 1
        assert found.after[c, n] == max(0, found.episodes[c, n] - first)
    for bad in (0, 30):
        with pytest.raises(InputError, match=f"episodes.*{bad}"):
            outcomes(MultistepQ(task, pair, [0]), bad)
    with pytest.raises(InputError, match="fresh"):
        outcomes(plain, 20)


def test_episodes_are_counted_to_where_the_optimum_stays():
    optimal = np.array([[1, 0, 0, 1], [1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0]], bool)
    assert episodes_to_optimal(optimal).tolist() == [1.0, 4.0, 4.0, math.inf]
    assert episodes_to_optimal(optimal.reshape(4, 2, 2)).shape == (2, 2)
    assert episodes_to_optimal(np.array([True])) == 1.0


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: Setting(lr=0.0), "lr.*0"),
        (lambda: Setting(lr=1.5), "lr.*1.5"),
        (lambda: Setting(epsilon=-0.1), "epsilon.*-0.1"),
        (lambda: Setting(epsilon_decay=1.1), "epsilon_decay.*1.1"),
        (lambda: Setting(guided=2.0), "guided.*2"),
        (lambda: AveragedHighway(lookahead=0), "lookahead.*0"),
        (lambda: AveragedHighway(groups=0), "groups.*0"),
        (lambda: MultistepQ(corridor(3), [], [0]), "settings"),
        (lambda: MultistepQ(corridor(3), [Setting()], []), "seeds"),
        (lambda: MultistepQ(corridor(3), [Setting()], [-1]), "seeds.*-1"),
        (lambda: MultistepQ(corridor(3), [Setting()], [0], replays=-1), "replays.*-1"),
        (lambda: MultistepQ(corridor(3), [Setting()], [0], capacity=0), "capacity.*0"),
        (lambda: MultistepQ(choice(3), [Setting(guided=0.5)], [0]), "guided.*0.5"),
        (lambda: MultistepQ(choice(3), [Setting(AveragedHighway(groups=9))], [0], capacity=8), "groups.*9"),
        (lambda: MultistepQ(corridor(3), [Setting()], [0]).run_episodes(0), "count.*0"),
        (lambda: MultistepQ(corridor(3), [Setting()], [0]).replay(1), "replay"),
        (lambda: episodes_to_optimal(np.zeros((0, 2), bool)), "optimal"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
