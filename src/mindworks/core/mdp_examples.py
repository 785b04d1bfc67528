"""Finite processes to try methods on: grids and the four rooms among them, chains, and random ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mindworks.core.mdp import MDP, DeterministicMDP, FiniteMDP
from mindworks.errors import require

FOUR_ROOMS = """
###########
#....#....#
#.........#
#....#....#
#....#....#
##.#####.##
#....#....#
#....#....#
#.........#
#....#...G#
###########
"""
MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))  # left, down, right, up


def four_rooms(*, discount: float = 0.9, goal_reward: float = 1.0, step_reward: float = 1e-3) -> DeterministicMDP:
    """Four rooms with doors on 11 x 11 cells, 68 of them free: state 0 is the corner (1, 1), the goal is (9, 9).

    The grid of the experiment in Štrupl et al., arXiv:2107.09088, as its code has it. See `grid_world`.
    """
    return grid_world(FOUR_ROOMS, discount=discount, goal_reward=goal_reward, step_reward=step_reward)


def grid_world(layout: str, *, discount: float, goal_reward: float = 1.0, step_reward: float = 0.0) -> DeterministicMDP:
    """A grid of walls `#`, free cells `.` and absorbing goals `G`; states are its free cells and goals, row by row.

    The four actions go left, down, right and up; a move into a wall stays. Entering a goal pays `goal_reward`, every
    other action `step_reward`, those in a goal too. The edge of the layout counts as wall.
    """
    rows = layout.split()
    state = {cell: i for i, cell in enumerate(map(tuple, cells(layout).tolist()))}
    goal = [rows[y][x] == "G" for y, x in state]
    successor = [
        [i if goal[i] else state.get((y + dy, x + dx), i) for dy, dx in MOVES] for i, (y, x) in enumerate(state)
    ]
    following = torch.tensor(successor)
    goals = torch.tensor(goal)
    entered = goals[following] & ~goals.unsqueeze(-1)
    reward = torch.where(entered, goal_reward, torch.tensor(step_reward, dtype=torch.float64))
    return DeterministicMDP(following, reward, discount)


def cells(layout: str) -> Tensor:
    """Row and column `[S, 2]` of every state of `grid_world(layout)`."""
    rows = layout.split()
    known = set("".join(rows)) <= set("#.G")
    require(bool(rows) and known, f"layout must be lines of '#', '.' and 'G', got {layout!r}")
    require(len(set(map(len, rows))) == 1, f"layout must have lines of one length, got {sorted(set(map(len, rows)))}")
    found = [(y, x) for y, row in enumerate(rows) for x, mark in enumerate(row) if mark != "#"]
    require(bool(found), "layout must have a cell that is not a wall")
    return torch.tensor(found)


def chain(length: int, *, discount: float, slip: float = 0.0, reward: float = 1.0) -> MDP:
    """`length` states in a line, with a reward only at its end: action 0 goes back, action 1 forward.

    Entering the last state, which is absorbing, pays `reward`; going back from the first stays there. With
    probability `slip` a move goes the other way; without slipping the process comes in the index form.
    """
    require(length >= 2, f"length must be at least 2, got {length}")
    require(0 <= slip < 1, f"slip must be in [0, 1), got {slip}")
    states = torch.arange(length)
    successor = torch.stack([(states - 1).clamp_min(0), (states + 1).clamp_max(length - 1)], -1)
    successor[-1] = length - 1
    rewards = torch.zeros(length, 2, dtype=torch.float64)
    rewards[-2, 1] = reward
    straight = DeterministicMDP(successor, rewards, discount)
    if slip == 0:
        return straight
    transition = straight.dense().transition
    mixed = (1 - slip) * transition + slip * transition.flip(-2)
    return FiniteMDP(mixed, (1 - slip) * rewards + slip * rewards.flip(-1), discount)


def garnet(
    count: int, states: int, actions: int, *, discount: float, seeds: Sequence[int], branching: int | None = None
) -> FiniteMDP:
    """Random processes `[seeds, count]`: each (s, a) leads to `branching` states (all by default), rewards N(0, 1).

    Transition probabilities are uniform on the simplex over the chosen successors. The Garnet family of Archibald,
    McKinnon and Thomas, "On the generation of Markov decision processes", J. Oper. Res. Soc. 46, 1995.
    """
    branching = states if branching is None else branching
    require(
        min(count, states, actions) >= 1, f"count, states and actions must be positive, got {count, states, actions}"
    )
    require(len(seeds) >= 1, "seeds must not be empty")
    require(1 <= branching <= states, f"branching must be in [1, {states}], got {branching}")
    transitions, rewards = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        shape = (count, states, actions, states)
        weights = -torch.rand(shape, generator=generator, dtype=torch.float64).clamp_min(1e-300).log()
        order = torch.rand(shape, generator=generator, dtype=torch.float64).argsort(-1)
        weights = torch.where(order < branching, weights, 0.0)
        transitions.append(weights / weights.sum(-1, keepdim=True))
        rewards.append(torch.randn(shape[:-1], generator=generator, dtype=torch.float64))
    return FiniteMDP(torch.stack(transitions), torch.stack(rewards), discount)
