"""Multi-step Q-learning in tables from replayed episodes: one row per setting and seed, all rows at once.

After Wang et al., "Highway Reinforcement Learning", 2024, arXiv:2405.18289, whose method is the kind `highway`; the
other kinds of `mindworks.core.targets.Target` are what it is compared with. C settings, N seeds, R = C x N rows, S
states, A actions, K stored episodes, T steps of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mindworks.core.targets import Target
from mindworks.errors import require, require_at_least
from mindworks.tabular.delayed_tasks import Bools, Floats, Ints, TabularTask, greedy_actions


@dataclass(frozen=True)
class AveragedHighway:
    """The highway target of returns that are averaged first: per pair of state and action, group and depth.

    y(s, a) is the largest, over depths k = 1..`lookahead` and groups, of the mean k-step return of all stored visits of
    (s, a) in the group's episodes; a return whose episode ends within k steps is that of the whole rest. A group stands
    for one policy of the method: its mean estimates what k - 1 steps of the group's behaviour and then the values are
    worth, a mixture of the policies that acted, so in expectation it is at most the target of the best of them.

    For given values each mean is unbiased, so the largest expected mean is overestimated only by the spread of the
    means, which falls like one over the root of the visits. With few visits it still leans up: one visit in each group
    is the plain `highway` target. Values that are such maxima themselves compound the lean along an episode. From 400
    episodes with `epsilon` 0.5, the noisy arm of `noisy_bandit`, worth 0.4 but for the discount, seemed worth 0.44
    after a delay of 1 step and 0.51 after 20; with plain `highway` 1.12 and 2.00 (lr 1, seeds 100-109, 2026-11-27).
    """

    lookahead: int = 16
    """Rewards that a return uses at most."""
    groups: int = 1
    """Parts of about equal size that the places of stored episodes are divided into: runs of consecutive episodes."""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "lookahead", "groups")


@dataclass(frozen=True)
class Setting:
    """What may differ from row to row."""

    target: Target | AveragedHighway = field(default_factory=Target)
    """What the visited pairs are moved towards."""
    lr: float = 0.3
    """Step size, in (0, 1]."""
    epsilon: float = 0.1
    """Share of even draws in the behaviour, which is greedy otherwise and shares ties evenly."""
    epsilon_decay: float = 1.0
    """Factor of `epsilon` per episode."""
    guided: float = 0.0
    """Probability that the task's guide plays an episode, from its first step to its last."""

    def __post_init__(self) -> None:
        require(0 < self.lr <= 1, f"lr must be in (0, 1], got {self.lr}")
        for name in ("epsilon", "epsilon_decay", "guided"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} must be in [0, 1], got {value}")


@dataclass(frozen=True)
class History:
    """What came of E episodes."""

    optimal: Bools
    """Whether the greedy policy was optimal after each, `[E, C, N]`: `TabularTask.greedy_is_optimal`."""
    returns: Floats
    """Discounted return of each, as the behaviour earned it, `[E, C, N]`."""


def episodes_to_optimal(optimal: Bools) -> Floats:
    """The first episode, counted from 1, from which `optimal[E, ...]` holds to the end, `[...]`; inf where none."""
    require(len(optimal) >= 1, "optimal must hold at least one episode")
    streak = np.logical_and.accumulate(optimal[::-1]).sum(0)
    return np.where(streak > 0, len(optimal) - streak + 1.0, np.inf)


@dataclass(frozen=True)
class Outcomes:
    """What came of learners, `[C, N]` each."""

    episodes: Floats
    """Until the greedy policy is optimal and stays so, counted from 1; inf where it never is."""
    after: Floats
    """The same, counted from the first episode that earned the optimum, which exploration decides; inf likewise."""
    value: Floats
    """Worth of the greedy policy from the start: the mean of ten looks in the second half of the episodes."""
    bias: Floats
    """What Q makes of the start in the end, less the optimum."""


class MultistepQ:
    """Q-learning from whole episodes: `run_episodes(count)` plays, stores and learns; `q` is the table so far.

    After every episode each row sweeps once through it and through `replays` episodes drawn evenly, with replacement,
    from its newest `capacity`, one after the other. A sweep computes the targets of all steps of its episode from the
    table before the sweep, and moves each visited pair (s, a) by `lr` towards the mean over its visits. With
    `AveragedHighway` it is a single sweep through everything stored instead. Q starts at 0. float64.

    Rows differ in `settings` and `seeds`. A seed gives the same draws to every setting, and a row's numbers do not
    depend on which others run beside it.
    """

    def __init__(
        self,
        task: TabularTask,
        settings: Sequence[Setting],
        seeds: Sequence[int],
        *,
        replays: int = 4,
        capacity: int = 50,
    ) -> None:
        require(len(settings) >= 1, "settings must not be empty")
        require(len(seeds) >= 1, "seeds must not be empty")
        require(min(seeds) >= 0, f"seeds must not be negative, got {list(seeds)}")
        require(replays >= 0, f"replays must be at least 0, got {replays}")
        require(capacity >= 1, f"capacity must be at least 1, got {capacity}")
        for setting in settings:
            guided = setting.guided
            require(guided == 0 or task.guide is not None, f"guided must be 0 for a task without a guide, got {guided}")
            groups = setting.target.groups if isinstance(setting.target, AveragedHighway) else 1
            require(groups <= capacity, f"groups must be at most capacity = {capacity}, got {groups}")
        self.task, self.settings, self.seeds = task, tuple(settings), tuple(seeds)
        self.replays, self.capacity = replays, capacity
        self.episodes = 0
        self._generators = [np.random.default_rng(seed) for seed in seeds]
        self._lr = self._each("lr")
        self._blocks = _blocks([setting.target for setting in settings], len(seeds))
        rows = len(settings) * len(seeds)
        self._rows = np.arange(rows)
        self._q = np.zeros((rows, task.states + 1, task.actions))  # the end is worth 0 and is never moved
        self._stored = _Episodes.empty(rows, capacity, task.horizon)
        self._sums = np.zeros((2, self._q.size))  # of targets and visits; 0 between sweeps, for tables may be large

    @property
    def q(self) -> Floats:
        """The table, `[C, N, S, A]`; a view, to be read."""
        return self._q.reshape(len(self.settings), len(self.seeds), -1, self.task.actions)[:, :, :-1]

    def greedy_value(self) -> Floats:
        """What the greedy policies are worth from the start, `[C, N]`, exactly: `TabularTask.greedy_value`."""
        return self.task.greedy_value(self.q)

    def run_episodes(self, count: int) -> History:
        """Play and learn from `count` more episodes per row."""
        require(count >= 1, f"count must be at least 1, got {count}")
        shape = (count, len(self.settings), len(self.seeds))
        optimal, returns = np.zeros(shape, np.bool_), np.zeros(shape)
        for i in range(count):
            drawn = self._play()
            returns[i] = self._discounted_return().reshape(shape[1:])
            self.episodes += 1
            self._learn(drawn)
            optimal[i] = self.task.greedy_is_optimal(self.q)
        return History(optimal, returns)

    def replay(self, count: int) -> None:
        """Learn `count` more times from what is stored, as after an episode, without playing one."""
        require(self.episodes > 0, "replay: run_episodes first, nothing is stored")
        require(count >= 1, f"count must be at least 1, got {count}")
        for _ in range(count):
            drawn = np.stack([rng.random(self.replays) for rng in self._generators])
            self._learn(np.tile(drawn, (len(self.settings), 1)))

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to go on exactly from here, as plain values and arrays."""
        return {
            "episodes": self.episodes,
            "generators": [generator.bit_generator.state for generator in self._generators],
            "q": self._q.copy(),
            "stored": {name: values.copy() for name, values in vars(self._stored).items()},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` of a learner with the same task, settings and seeds returned."""
        shape = state["q"].shape
        require(shape == self._q.shape, f"state must hold a table of shape {self._q.shape}, got {shape}")
        self.episodes = state["episodes"]
        for generator, saved in zip(self._generators, state["generators"], strict=True):
            generator.bit_generator.state = saved
        self._q = state["q"].copy()
        self._stored = _Episodes(**{name: values.copy() for name, values in state["stored"].items()})

    def _each(self, name: str) -> Floats:
        """A number of the settings for each row, `[R]`."""
        return np.repeat([getattr(setting, name) for setting in self.settings], len(self.seeds))

    def _play(self) -> Floats:
        """Play and store one episode per row; gives uniform draws for the replays, `[R, replays]`."""
        task, stored, slot = self.task, self._stored, self.episodes % self.capacity
        head, steps = zip(
            *((rng.random(1 + self.replays), rng.random((task.horizon, 2))) for rng in self._generators), strict=True
        )
        uniform = np.tile(np.stack(steps), (len(self.settings), 1, 1))
        drawn = np.tile(np.stack(head), (len(self.settings), 1))
        epsilon = self._each("epsilon") * self._each("epsilon_decay") ** self.episodes
        guided = drawn[:, 0] < self._each("guided")
        stored.clear(slot)
        row, state = self._rows, np.zeros(len(self._rows), np.int64)
        for t in range(task.horizon):
            chance = self._behavior(row, state, epsilon[row], guided[row])
            action = _draw(chance, uniform[row, t, 0])
            following, reward, ended = task.step(state, action, uniform[row, t, 1])
            stored.state[row, slot, t], stored.action[row, slot, t] = state, action
            stored.behavior[row, slot, t] = chance[np.arange(len(row)), action]
            stored.reward[row, slot, t], stored.following[row, slot, t] = reward, following
            stored.discount[row, slot, t] = np.where(ended, 0.0, task.discount)
            stored.length[row, slot] = t + 1
            row, state = row[~ended], following[~ended]
            if not len(row):
                break
        return drawn[:, 1:]

    def _behavior(self, row: Ints, state: Ints, epsilon: Floats, guided: Bools) -> Floats:
        """The probability of every action in `state[n]` of the rows `row[n]`, `[n, A]`."""
        greedy = greedy_actions(self._q[row, state])
        share = epsilon[:, None]
        chance = (1 - share) * greedy / greedy.sum(-1, keepdims=True) + share / self.task.actions
        if self.task.guide is None:
            return chance
        return np.where(guided[:, None], self.task.guide[state], chance)

    def _discounted_return(self) -> Floats:
        """Of the newest episode of every row, `[R]`; what was cleared pays nothing."""
        reward = self._stored.reward[:, self.episodes % self.capacity]
        # no matrix product: that rounds a row differently in other company
        return (reward * self.task.discount ** np.arange(reward.shape[-1])).sum(-1)

    def _learn(self, drawn: Floats) -> None:
        """Sweep through the newest episode, then through those that `drawn[R, replays]` picks."""
        held = min(self.episodes, self.capacity)
        newest = (self.episodes - 1) % self.capacity
        for target, rows in self._blocks:
            if isinstance(target, AveragedHighway):
                self._sweep_all(target, rows, held)
                continue
            self._sweep(target, rows, np.full(len(rows), newest))
            for uniform in drawn[rows].T:
                self._sweep(target, rows, (uniform * held).astype(np.int64))

    def _sweep(self, target: Target, rows: Ints, slot: Ints) -> None:
        """Move the pairs of episode `slot[n]` of each of `rows[n]` towards their targets."""
        stored = self._stored
        length = stored.length[rows, slot]
        steps = int(length.max())
        time = np.arange(steps)
        action = stored.action[rows, slot, :steps]
        y = target(
            torch.from_numpy(stored.reward[rows, slot, :steps]),
            torch.from_numpy(stored.discount[rows, slot, :steps]),
            torch.from_numpy(self._q[rows[:, None], stored.following[rows, slot, :steps]]),
            torch.from_numpy(_ahead(action, 0)),
            torch.from_numpy(_ahead(stored.behavior[rows, slot, :steps], 1.0)),
            torch.from_numpy(time >= length[:, None] - 1),
        ).numpy()
        valid = time < length[:, None]
        pair = self._pairs(rows[:, None], stored.state[rows, slot, :steps], action)[valid]
        total, visits = self._sums
        np.add.at(total, pair, y[valid])
        np.add.at(visits, pair, 1.0)
        self._move(pair, total[pair] / visits[pair])
        total[pair] = visits[pair] = 0

    def _sweep_all(self, target: AveragedHighway, rows: Ints, held: int) -> None:
        """Move all stored pairs of `rows` towards the target of `AveragedHighway`."""
        stored = self._stored
        length = stored.length[rows, :held]
        steps = int(length.max())
        time = np.arange(steps)
        valid = time < length[..., None]
        # Steps in one line, each episode's in order: y of the next step is the neighbour, but for the last of each.
        last = (time == length[..., None] - 1)[valid]
        reward, discount = (part[rows, :held, :steps][valid] for part in (stored.reward, stored.discount))
        following, state, action = (
            part[rows, :held, :steps][valid] for part in (stored.following, stored.state, stored.action)
        )
        row, slot, _ = np.nonzero(valid)
        bootstrap = self._q.max(-1)[rows[row], following]
        pair = self._pairs(rows[row], state, action)
        place = pair * target.groups + slot * target.groups // self.capacity
        visited = np.bincount(place) > 0  # a count is several times faster than a sort
        cell, where = np.flatnonzero(visited), (visited.cumsum() - 1)[place]
        visits = np.bincount(where)
        y = reward + discount * bootstrap
        best = np.bincount(where, y) / visits
        for _ in range(min(target.lookahead, steps) - 1):
            y = reward + discount * np.where(last, bootstrap, np.append(y[1:], 0.0))
            np.maximum(best, np.bincount(where, y) / visits, out=best)
        first = np.flatnonzero(np.diff(cell // target.groups, prepend=-1))
        self._move(cell[first] // target.groups, np.maximum.reduceat(best, first))

    def _pairs(self, row: Ints, state: Ints, action: Ints) -> Ints:
        """Where Q(state, action) of a row stands in the flat table."""
        return (row * (self.task.states + 1) + state) * self.task.actions + action

    def _move(self, pair: Ints, y: Floats) -> None:
        """Q <- Q + lr (y - Q) at the places `pair[n]`; one that is listed twice has the same y twice."""
        q = self._q.reshape(-1)
        lr = self._lr[pair // (self._q.shape[1] * self._q.shape[2])]
        q[pair] += lr * (y - q[pair])


def outcomes(learner: MultistepQ, episodes: int) -> Outcomes:
    """Run a fresh learner for `episodes`, a multiple of 20, and look at what it learned every twentieth of them."""
    require(episodes >= 20 and episodes % 20 == 0, f"episodes must be a multiple of 20, got {episodes}")
    require(learner.episodes == 0, f"learner must be fresh, it has played {learner.episodes} episodes")
    best = float(learner.task.optimal_q[0].max())
    parts, worth = [], []
    for _ in range(20):
        parts.append(learner.run_episodes(episodes // 20))
        worth.append(learner.greedy_value())
    found = episodes_to_optimal(np.concatenate([part.optimal for part in parts]))
    earned = np.concatenate([part.returns for part in parts]) >= best - 1e-9
    first = np.where(earned.any(0), earned.argmax(0) + 1, 0)  # an optimal policy may come before its luck
    after = np.maximum(found - first, 0)
    return Outcomes(found, after, np.stack(worth)[10:].mean(0), learner.q[:, :, 0].max(-1) - best)


@dataclass
class _Episodes:
    """The newest K episodes of every row, `[R, K, T]`, padded by zeros, and their lengths `[R, K]`."""

    state: Ints
    action: Ints
    following: Ints
    reward: Floats
    discount: Floats
    behavior: Floats
    """The probability with which the action was drawn; 1 where there is none."""
    length: Ints

    @classmethod
    def empty(cls, rows: int, capacity: int, horizon: int) -> _Episodes:
        """Room for K = `capacity` episodes of at most T = `horizon` steps."""
        shape = (rows, capacity, horizon)
        state, action, following = (np.zeros(shape, np.int64) for _ in range(3))
        reward, discount = (np.zeros(shape) for _ in range(2))
        return cls(state, action, following, reward, discount, np.ones(shape), np.zeros((rows, capacity), np.int64))

    def clear(self, slot: int) -> None:
        """Make room for a new episode."""
        for name, values in vars(self).items():
            values[:, slot] = name == "behavior"


def _blocks(targets: list[Target | AveragedHighway], seeds: int) -> list[tuple[Target | AveragedHighway, Ints]]:
    """Every distinct target with the rows that have it: they are swept together."""
    rows = np.arange(len(targets) * seeds).reshape(len(targets), seeds)
    return [
        (target, rows[[i for i, other in enumerate(targets) if other == target]].ravel())
        for target in dict.fromkeys(targets)
    ]


def _draw(chance: Floats, uniform: Floats) -> Ints:
    """One action per row of `chance[n, A]`; never one of probability 0, whatever was rounded."""
    sums = chance.cumsum(-1)
    return (sums <= (uniform * sums[:, -1])[:, None]).sum(-1)


def _ahead(values: np.ndarray, last: float) -> np.ndarray:
    """What stands one step ahead, `[n, T]`; `last` behind the last step."""
    return np.concatenate([values[:, 1:], np.full_like(values[:, :1], last)], -1)
