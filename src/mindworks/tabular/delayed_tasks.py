"""Small episodic tasks whose rewards come late, as tables: rows step side by side, and every greedy policy is judged.

S states, A actions, B branches (what chance decides after an action), `...` any leading dimensions. State 0 starts an
episode; the end is state S, which the tables of Q leave out. Choice and trace-back follow the tasks of these names in
Arjona-Medina et al., "RUDDER: Return decomposition for delayed rewards", NeurIPS 2019, arXiv:1806.07857, in sizes of
our own. `corridor`, `choice`, `trace_back` and `noisy_bandit` delay their rewards; `slippery_cliff` and `random_task`
pay at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mindworks.core.finite_mdp import MDP, DeterministicMDP, FiniteMDP, garnet
from mindworks.errors import require, require_at_least

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Branches = list[tuple[float, Hashable, float]]
"""Probability, next state (None is the end) and reward of everything that an action may lead to."""


@dataclass(frozen=True, eq=False)
class TabularTask:
    """An episodic task of finitely many states: `step` plays it, `greedy_is_optimal` and `greedy_value` judge Q."""

    probability: Floats
    """Of every branch, `[S, A, B]`; rows sum to 1."""
    successor: Ints
    """The next state, `[S, A, B]`, in 0..S; S is the end."""
    reward: Floats
    """What a branch pays, `[S, A, B]`."""
    discount: float
    """In [0, 1)."""
    horizon: int
    """Steps after which an episode is truncated, which is no end of the task."""
    guide: Floats | None = None
    """A policy `[S, A]` that explores where chance alone would not get anywhere."""

    def __post_init__(self) -> None:
        shape = self.probability.shape
        require(len(shape) == 3 and min(shape) >= 1, f"probability must be [S, A, B], got shape {shape}")
        for name in ("successor", "reward"):
            got = getattr(self, name).shape
            require(got == shape, f"{name} must be [S, A, B] = {shape}, got shape {got}")
        low, high = int(self.successor.min()), int(self.successor.max())
        require(0 <= low <= high <= shape[0], f"successor must be states in [0, {shape[0]}], got {low} to {high}")
        require(0 <= self.discount < 1, f"discount must be in [0, 1), got {self.discount}")
        require_at_least(self, 1, "horizon")
        _require_rows("probability", self.probability)
        if self.guide is not None:
            require(self.guide.shape == shape[:2], f"guide must be [S, A] = {shape[:2]}, got shape {self.guide.shape}")
            _require_rows("guide", self.guide)

    @property
    def states(self) -> int:
        """S."""
        return self.probability.shape[0]

    @property
    def actions(self) -> int:
        """A."""
        return self.probability.shape[1]

    def step(self, state: Ints, action: Ints, uniform: Floats) -> tuple[Ints, Floats, Bools]:
        """Next states, rewards and whether the task ended, `[N]` each, for `uniform[N]` in [0, 1)."""
        branch: Ints | int = 0
        if self.probability.shape[2] > 1:
            branch = (self._cumulative[state, action] <= uniform[:, None]).sum(-1)
        following = self.successor[state, action, branch]
        return following, self.reward[state, action, branch], following == self.states

    @cached_property
    def mdp(self) -> MDP:
        """The same task without truncation, its end an absorbing state S that pays nothing."""
        states, actions, branches = self.probability.shape
        paid = torch.from_numpy((self.probability * self.reward).sum(-1))
        paid = torch.nn.functional.pad(paid, (0, 0, 0, 1))
        successor = torch.nn.functional.pad(torch.from_numpy(self.successor), (0, 0, 0, 0, 0, 1), value=states)
        if branches == 1:
            return DeterministicMDP(successor.squeeze(-1), paid, self.discount)
        chance = torch.nn.functional.pad(torch.from_numpy(self.probability), (0, 0, 0, 0, 0, 1))
        chance[-1, :, 0] = 1
        transition = torch.zeros(states + 1, actions, states + 1, dtype=torch.float64)
        return FiniteMDP(transition.scatter_add(-1, successor, chance), paid, self.discount)

    @cached_property
    def optimal_q(self) -> Floats:
        """Q* `[S, A]`."""
        return self.mdp.optimal_action_value()[:-1].numpy()

    @cached_property
    def optimal_actions(self) -> Bools:
        """Which actions are optimal, `[S, A]`, within 1e-9 times the largest |Q*|."""
        return self.mdp.optimal_actions()[:-1].numpy()

    def greedy_is_optimal(self, q: Floats) -> Bools:
        """Whether acting greedily in `q[..., S, A]` is optimal from the start, `[...]`, exactly on the model.

        A tie counts as its worst action: every greedy action must be optimal in every state that greedy actions can
        reach. That is also when the policy that shares ties evenly is worth as much as the best one.
        """
        greedy = greedy_actions(self._rows(q))
        bad: Bools = np.asarray((greedy & ~self.optimal_actions).any(-1))
        optimal: Bools = np.logical_not(bad[:, 0])
        seen = np.zeros((len(bad), self.states + 1), np.bool_)
        row = np.flatnonzero(optimal & bad.any(-1))
        state = np.zeros(len(row), np.int64)
        while len(row):
            which, action = np.nonzero(greedy[row, state])
            reached = self._possible[state[which], action]
            origin, place = np.nonzero(reached)
            row, state = row[which[origin]], self.successor[state[which[origin]], action[origin], place]
            fresh = ~seen[row, state] & (state < self.states)
            row, state = np.unique(np.stack([row[fresh], state[fresh]]), axis=1)
            seen[row, state] = True
            optimal[row[bad[row, state]]] = False
            row, state = row[optimal[row]], state[optimal[row]]
        return optimal.reshape(q.shape[:-2])

    def greedy_value(self, q: Floats) -> Floats:
        """What the policy that acts greedily in `q[..., S, A]`, ties shared, is worth from the start, `[...]`."""
        greedy = greedy_actions(self._rows(q))
        policy = np.full((len(greedy), self.states + 1, self.actions), 1 / self.actions)
        policy[:, :-1] = greedy / greedy.sum(-1, keepdims=True)
        return self.mdp.state_value(torch.from_numpy(policy))[:, 0].numpy().reshape(q.shape[:-2])

    def _rows(self, q: Floats) -> Floats:
        shape = (self.states, self.actions)
        require(q.shape[-2:] == shape, f"q must be [..., S, A] = [..., {shape}], got shape {q.shape}")
        return q.reshape(-1, *shape)

    @cached_property
    def _possible(self) -> Bools:
        return self.probability > 0

    @cached_property
    def _cumulative(self) -> Floats:
        """Sums of probability, 1 from the last branch on that can happen: none of probability 0 is ever drawn."""
        sums = self.probability.cumsum(-1)
        following = np.flip(np.flip(self.probability, -1).cumsum(-1), -1) - self.probability
        return np.where(following > 0, sums, 1.0)


def greedy_actions(q: Floats) -> Bools:
    """The actions of the largest value, `[..., A]`, all of them where several are."""
    return q == q.max(-1, keepdims=True)


def tabulate(
    start: Hashable, actions: int, branches: Callable[[Any, int], Branches], discount: float, horizon: int
) -> TabularTask:
    """The task whose states are all that `branches(state, action)` leads to from `start`, in the order they are found.

    Any hashable value is a state. Branches of probability 0 are dropped.
    """
    require(actions >= 1, f"actions must be at least 1, got {actions}")
    number, queue, found = {start: 0}, [start], []
    for state in queue:  # grows while it is read
        for action in range(actions):
            listed = [branch for branch in branches(state, action) if branch[0] > 0]
            for _, following, _ in listed:
                if following is not None and following not in number:
                    number[following] = len(queue)
                    queue.append(following)
            found.append(listed)
    width = max(map(len, found))
    shape = (len(queue), actions, width)
    probability, reward = np.zeros((len(found), width)), np.zeros((len(found), width))
    successor = np.full((len(found), width), len(queue), np.int64)
    for i, listed in enumerate(found):
        for j, (chance, following, paid) in enumerate(listed):
            probability[i, j], reward[i, j] = chance, paid
            successor[i, j] = len(queue) if following is None else number[following]
    return TabularTask(probability.reshape(shape), successor.reshape(shape), reward.reshape(shape), discount, horizon)


def corridor(length: int, *, exit_reward: float = 0.5, discount: float = 0.99, guide_exit: float = 0.03) -> TabularTask:
    """`length` states in a line: action 0 takes an exit that pays `exit_reward`, action 1 goes on, to 1 at the end.

    Going on is optimal everywhere, but even draws reach the end with probability 2^-length. So there is a guide, which
    takes the exit of a state with probability `guide_exit`. Raises `InputError` where the exit would be better.
    """
    require(length >= 1, f"length must be at least 1, got {length}")
    worth = discount ** (length - 1)
    require(
        worth > exit_reward, f"length {length} makes the end worth {worth:.3g}, not above exit_reward {exit_reward}"
    )
    require(0 <= guide_exit <= 1, f"guide_exit must be in [0, 1], got {guide_exit}")
    states = np.arange(length)
    successor = np.stack([np.full(length, length), states + 1], -1)[..., None]
    reward = np.zeros((length, 2, 1))
    reward[:, 0] = exit_reward
    reward[-1, 1] = 1
    guide = np.tile([guide_exit, 1 - guide_exit], (length, 1))
    return TabularTask(np.ones((length, 2, 1)), successor, reward, discount, length, guide)


def delayed_choice(
    now: Sequence[float], later: Sequence[Sequence[tuple[float, float]]], delay: int, discount: float = 0.99
) -> TabularTask:
    """One decision, then `delay` steps in which nothing matters, then its reward.

    Action a pays `now[a]` at once and, with the last step, one of the (probability, reward) of `later[a]`.
    """
    require(delay >= 1, f"delay must be at least 1, got {delay}")
    require(len(now) == len(later) >= 1, f"later must have {len(now)} entries as now, got {len(later)}")

    def branches(state: Any, action: int) -> Branches:
        chosen, waited = state
        if chosen < 0:
            return [(1.0, (action, 0), now[action])]
        if waited < delay - 1:
            return [(1.0, (chosen, waited + 1), 0.0)]
        return [(chance, None, paid) for chance, paid in later[chosen]]

    return tabulate((-1, 0), len(now), branches, discount, delay + 1)


def choice(delay: int, *, lure: float = 0.1, noise: float = 0.0, discount: float = 0.99) -> TabularTask:
    """Action 0 pays `lure` at once, action 1 pays 1 after `delay` steps in which nothing matters.

    With `noise` that much is added to the last reward, or subtracted, as a fair coin falls; action 0 gets it too.
    """
    worth = discount**delay
    require(lure < worth, f"lure must be below what the choice is worth, {worth:.3g}, got {lure}")
    require(noise >= 0, f"noise must be at least 0, got {noise}")
    sides = (-noise, noise) if noise else (0.0,)
    later = [[(1 / len(sides), reward + side) for side in sides] for reward in (0.0, 1.0)]
    return delayed_choice((lure, 0.0), later, delay, discount)


def noisy_bandit(
    delay: int, *, sure: float = 0.5, win: float = 2.0, chance: float = 0.2, discount: float = 0.99
) -> TabularTask:
    """Action 0 pays `sure` after `delay` steps, action 1 pays `win` with probability `chance`, else nothing.

    The sure arm is better on average and the other one at its luckiest, which is what a maximum over returns sees.
    """
    require(0 <= chance <= 1, f"chance must be in [0, 1], got {chance}")
    require(chance * win < sure, f"chance x win must be below sure = {sure}, got {chance * win:.3g}")
    return delayed_choice((0.0, 0.0), [[(1.0, sure)], [(chance, win), (1 - chance, 0.0)]], delay, discount)


MOVES = ((0, 1), (0, -1), (-1, 0), (1, 0))  # right, left, up, down


def trace_back(size: int, horizon: int, *, code: Sequence[int] = (2, 0), discount: float = 0.99) -> TabularTask:
    """A walk from the middle of a grid whose first moves decide the reward at its end, `horizon` steps later.

    If they are `code` (0 right, 1 left, 2 up, 3 down), the last step pays 1. A move into the edge stays. States hold
    the cell, the time and whether the code can still be, or has been, kept.
    """
    require(size >= 1, f"size must be at least 1, got {size}")
    require(1 <= len(code) <= horizon, f"horizon must be at least the length of code {len(code)}, got {horizon}")
    require(all(move in range(len(MOVES)) for move in code), f"code must hold moves in [0, 4), got {list(code)}")

    def branches(state: Any, action: int) -> Branches:
        row, column, time, kept = state
        kept = kept and (time >= len(code) or action == code[time])
        if time == horizon - 1:
            return [(1.0, None, float(kept))]
        down, right = MOVES[action]
        row, column = (min(max(place, 0), size - 1) for place in (row + down, column + right))
        return [(1.0, (row, column, time + 1, kept), 0.0)]

    return tabulate((size // 2, size // 2, 0, True), len(MOVES), branches, discount, horizon)


def slippery_cliff(
    rows: int = 4, columns: int = 8, *, slip: float = 0.1, fall: float = -50.0, discount: float = 0.99
) -> TabularTask:
    """A grid with a cliff between start and goal: a step costs 1, a fall pays `fall` and ends the episode.

    Start and goal are the ends of the lowest row, the cliff is between them. With probability `slip` the move is one of
    the other three, all alike. Nothing here is delayed, and a lucky walk along the edge is no good plan. Truncated
    after 100 steps.
    """
    require(rows >= 2 and columns >= 3, f"rows and columns must be at least 2 and 3, got {(rows, columns)}")
    require(0 <= slip <= 1, f"slip must be in [0, 1], got {slip}")

    def branches(state: Any, action: int) -> Branches:
        found: Branches = []
        for move, (down, right) in enumerate(MOVES):
            row, column = state
            row, column = min(max(row + down, 0), rows - 1), min(max(column + right, 0), columns - 1)
            chance = 1 - slip if move == action else slip / 3
            if row == rows - 1 and column > 0:
                found.append((chance, None, -1.0 if column == columns - 1 else fall))
            else:
                found.append((chance, (row, column), -1.0))
        return found

    return tabulate((rows - 1, 0), len(MOVES), branches, discount, 100)


def random_task(
    seed: int,
    *,
    states: int = 20,
    actions: int = 4,
    branching: int = 3,
    noise: float = 1.0,
    discount: float = 0.9,
    horizon: int = 50,
) -> TabularTask:
    """A process of `garnet` that never ends: rewards N(0, 1) at every step, plus or minus `noise` as a coin falls."""
    require(noise >= 0, f"noise must be at least 0, got {noise}")
    process = garnet(1, states, actions, discount=discount, seeds=[seed], branching=branching)
    transition, reward = process.transition[0, 0].numpy(), process.reward[0, 0].numpy()
    order = np.argsort(-transition, -1, kind="stable")[..., :branching]
    chance = np.take_along_axis(transition, order, -1) / 2
    paid = np.broadcast_to(reward[..., None], chance.shape)
    return TabularTask(
        np.concatenate([chance, chance], -1),
        np.concatenate([order, order], -1),
        np.concatenate([paid - noise, paid + noise], -1),
        discount,
        horizon,
    )


def _require_rows(name: str, rows: Floats) -> None:
    off = float(np.abs(rows.sum(-1) - 1).max())
    require(bool((rows >= 0).all()) and off <= 1e-9, f"{name} must hold rows of probabilities, off by {off:.3g}")
