"""Command extensions to study: bandits with goals, grids, lines, fixed horizons (GCSL), states with a memory (ODT)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mindworks.errors import require
from mindworks.tabular.command_extension import CommandExtension

MOVES = ((0, 1), (0, -1), (-1, 0), (1, 0))  # right, left, up, down


def goal_bandit(outcomes: Tensor, goals: Tensor) -> CommandExtension:
    """One decision: action a leads to goal g with probability `outcomes[..., A, G]`; `goals[G]` draws the commands.

    States are goals, and the episode starts in state 0 with one step left.
    """
    count = outcomes.shape[-1]
    require(goals.shape == (count,), f"goals must be [G] = [{count}], got shape {tuple(goals.shape)}")
    transition = outcomes.unsqueeze(-3).expand(*outcomes.shape[:-2], count, *outcomes.shape[-2:])
    start = torch.zeros(count, 1, count, dtype=torch.float64)
    start[0, 0] = goals
    return CommandExtension(transition, torch.arange(count), 1, start)


def two_armed(alpha: float | Sequence[float] | Tensor) -> CommandExtension:
    """The counterexample of arXiv:2205.06595: arm a hits goal a with probability `alpha[...]`, else the other goal."""
    hit = torch.as_tensor(alpha, dtype=torch.float64)
    require(bool(((hit >= 0) & (hit <= 1)).all()), f"alpha must be in [0, 1], got {hit.tolist()}")
    rows = torch.stack([hit, 1 - hit, 1 - hit, hit], -1).unflatten(-1, (2, 2))
    return goal_bandit(rows, _exact([0.5, 0.5]))


def vanishing_goal(alpha: float, share: float) -> CommandExtension:
    """Three arms, three goals, of which 0 and 2 are commanded evenly; goal 2 is hit with probability `alpha` or less.

    Arm 0 reaches it with probability `share` x `alpha`, arm 1 with (1 - `share`) x `alpha`, arm 2 never. As alpha tends
    to 0, the objective of the second policy from the uniform one tends to (9 + 12 share) / (20 + 24 share). At 0 it is
    7/16. With shares 3/4 and 1/4 this is the example of arXiv:2502.05672.
    """
    for name, value in (("alpha", alpha), ("share", share)):
        require(0 <= value <= 1, f"{name} must be in [0, 1], got {value}")
    near, far = share * alpha, (1 - share) * alpha
    rows = [[1 - alpha, far, near], [near, 1 - alpha, far], [0.5, 0.5, 0]]
    return goal_bandit(_exact(rows), _exact([0.5, 0, 0.5]))


def _exact(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def grid_kernel(rows: Sequence[str], slip: float | Sequence[float] | Tensor) -> Tensor:
    """The kernel `[..., S, 4, S]` of a grid drawn in text, `#` for walls; cells are numbered row by row.

    Right, left, up and down move by one cell, or stay where that is blocked. With probability `slip[...]` the agent
    ends in one of the other cells that some action would have led to, all alike.
    """
    cells = [(i, j) for i, row in enumerate(rows) for j, mark in enumerate(row) if mark != "#"]
    require(len(cells) >= 1, f"rows must hold a free cell, got {list(rows)}")
    number = {cell: s for s, cell in enumerate(cells)}
    meant = torch.zeros(len(cells), len(MOVES), len(cells), dtype=torch.float64)
    for (i, j), s in number.items():
        for a, (down, right) in enumerate(MOVES):
            meant[s, a, number.get((i + down, j + right), s)] = 1
    others = (meant.amax(-2, keepdim=True) - meant).clamp_min(0)
    count = others.sum(-1, keepdim=True)
    chance = _probability(slip)[..., None, None, None] * (count > 0)
    return (1 - chance) * meant + chance * others / count.clamp_min(1)


def line_kernel(states: int, slip: float | Sequence[float] | Tensor) -> Tensor:
    """The kernel `[..., S, 2, S]` of a line: left or right by one, staying at the ends, reversed with `slip[...]`."""
    require(states >= 2, f"states must be at least 2, got {states}")
    place = torch.arange(states)
    ways = torch.stack([(place - 1).clamp_min(0), (place + 1).clamp_max(states - 1)], -1)
    meant = torch.nn.functional.one_hot(ways, states).double()
    chance = _probability(slip)[..., None, None, None]
    return (1 - chance) * meant + chance * meant.flip(-2)


def random_deterministic(states: int, actions: int, generator: torch.Generator, *batch: int) -> Tensor:
    """Deterministic kernels `[*batch, S, A, S]`, every successor uniform."""
    successor = torch.randint(states, (*batch, states, actions), generator=generator)
    return torch.nn.functional.one_hot(successor, states).double()


def _probability(slip: float | Sequence[float] | Tensor) -> Tensor:
    chance = torch.as_tensor(slip, dtype=torch.float64)
    require(bool(((chance >= 0) & (chance <= 1)).all()), f"slip must be in [0, 1], got {chance.tolist()}")
    return chance


def any_command(transition: Tensor, horizon: int, goal_map: Tensor | None = None) -> CommandExtension:
    """Episodes that start in every (s, h, g) alike; goals are the states, or what `goal_map[S]` makes of them."""
    states = transition.shape[-1]
    goal_map = torch.arange(states) if goal_map is None else goal_map
    goals = int(goal_map.max()) + 1
    start = torch.full((states, horizon, goals), 1 / (states * horizon * goals), dtype=torch.float64)
    return CommandExtension(transition, goal_map, horizon, start)


def one_goal(transition: Tensor, horizon: int, start: int, goal: int) -> CommandExtension:
    """Episodes of `horizon` steps from state `start` that must end in state `goal`: goal 1; other states are goal 0."""
    states = transition.shape[-1]
    require(0 <= start < states, f"start must be in [0, {states}), got {start}")
    require(0 <= goal < states, f"goal must be in [0, {states}), got {goal}")
    mass = torch.zeros(states, horizon, 2, dtype=torch.float64)
    mass[start, -1, 1] = 1
    return CommandExtension(transition, (torch.arange(states) == goal).long(), horizon, mass)


def fixed_horizon(transition: Tensor, horizon: int, start: Tensor, goals: Tensor | None = None) -> CommandExtension:
    """The setting of goal-conditioned supervised learning (GCSL): goals are states, every episode has `horizon` steps.

    `start[S]` draws the first state and `goals[S]`, uniform by default, the goal, independently.
    """
    states = transition.shape[-1]
    goals = torch.full((states,), 1 / states, dtype=torch.float64) if goals is None else goals
    for name, given in (("start", start), ("goals", goals)):
        require(given.shape == (states,), f"{name} must be [S] = [{states}], got shape {tuple(given.shape)}")
    mass = torch.zeros(states, horizon, states, dtype=torch.float64)
    mass[:, -1] = start[:, None] * goals
    return CommandExtension(transition, torch.arange(states), horizon, mass)


@dataclass(frozen=True)
class Memory:
    """A command extension whose states are the last K states beneath: rows of `histories[S, K]`, padded by -1."""

    extension: CommandExtension
    histories: Tensor

    def lift(self, policy: Tensor) -> Tensor:
        """The policy over histories that acts like `policy[..., S, N, G, A]` in the latest state."""
        return policy[..., self.histories[:, -1], :, :, :]


def with_memory(ce: CommandExtension, length: int) -> Memory:
    """States that remember the last `length` states, as a decision transformer (ODT) sees them.

    An episode starts with an empty memory. Only histories that some action of some kernel makes possible are kept.
    """
    require(length >= 1, f"length must be at least 1, got {length}")
    possible = ce.transition.sum(-2).flatten(0, -3).sum(0) > 0 if ce.transition.dim() > 3 else ce.transition.sum(-2) > 0
    follows = [torch.nonzero(row).flatten().tolist() for row in possible]
    found = {(*(-1,) * (length - 1), s): i for i, s in enumerate(range(ce.states))}
    queue = list(found)
    for history in queue:  # grows while it is read
        for s in follows[history[-1]]:
            longer = (*history[1:], s)
            if longer not in found:
                found[longer] = len(found)
                queue.append(longer)
    histories = torch.tensor(queue)
    last = histories[:, -1]
    transition = torch.zeros(*ce.transition.shape[:-3], len(found), ce.actions, len(found), dtype=torch.float64)
    for i, history in enumerate(queue):
        for s in follows[history[-1]]:
            transition[..., i, :, found[(*history[1:], s)]] = ce.transition[..., history[-1], :, s]
    start = torch.zeros(*ce.start.shape[:-3], len(found), ce.horizon, ce.goals, dtype=torch.float64)
    start[..., : ce.states, :, :] = ce.start
    return Memory(CommandExtension(transition, ce.goal_map[last], ce.horizon, start), histories)
