"""How well a policy plans: it is followed from every state of every maze, and rates are given by path length.

A policy that picks the best action in most cells can still fail nearly everywhere, since one wrong cell stops all paths
through it. So actions are not scored: only arriving counts. Shape legend: N mazes, A actions, O orientations, H, W a
map's height and width, S = O * H * W states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor

from mindworks.errors import require
from mindworks.planning.mazes import Mazes
from mindworks.planning.shortest_paths import successors

BINS = (20, 40, 60, 100, 200, 400, 800, 1600)
_BLOCK = 1 << 17
"""States followed at once, so that the jumps of a block stay in the cache; a maze is never divided."""


@dataclass(frozen=True, eq=False)
class Score:
    """Counts of starts, arrivals and shortest arrivals; scores of parts of a set add up with `+`.

    A start is a state from which the goal can be reached, other than the goal. `starts`, `successes` and `optimal` are
    int64 `[L]`, counted by steps of the shortest path: entry 7 is of starts 7 steps from the goal.
    """

    starts: Tensor
    """how many starts there are"""
    successes: Tensor
    """from how many of them the policy reaches the goal at all"""
    optimal: Tensor
    """from how many of them it does so on a shortest path"""
    maze_starts: Tensor
    """int64 `[N]`: starts of each maze"""
    maze_successes: Tensor
    """int64 `[N]`: successes of each maze"""
    maze_optimal: Tensor
    """int64 `[N]`: shortest arrivals of each maze"""
    maze_unreachable: Tensor
    """int64 `[N]`: open states of each maze from which no path leads to the goal; they are no starts"""
    bins: tuple[int, ...] = BINS
    """the path lengths that end a bin of `by_path_length`"""

    @property
    def success_rate(self) -> float:
        """Share of all starts that reach the goal; nan if there is no start."""
        return _rate(self.successes, self.starts)

    @property
    def optimality_rate(self) -> float:
        """Share of all starts that reach the goal on a shortest path; nan if there is no start."""
        return _rate(self.optimal, self.starts)

    @property
    def unreachable(self) -> int:
        """Open states from which no path leads to the goal."""
        return int(self.maze_unreachable.sum())

    @property
    def maze_success_rates(self) -> Tensor:
        """Success rate within each maze, float64 `[N]`; nan where a maze has no start."""
        return self.maze_successes.double() / self.maze_starts

    def by_path_length(self, edges: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Per bin of path lengths: `low`, `high`, `starts`, `success`, `optimality` (the rates; None in an empty bin).

        `edges` end the bins and belong to them: (20, 40) makes 1 to 20, 21 to 40, and all longer ones, whose `high` is
        None. Raises `InputError` for edges that do not rise from 1 on.
        """
        edges = _checked(self.bins if edges is None else edges)
        rows = []
        for low, high in pairwise((0, *edges, None)):
            part = slice((low or 0) + 1, None if high is None else high + 1)
            starts = int(self.starts[part].sum())
            row: dict[str, Any] = {
                "low": part.start,
                "high": high,
                "starts": starts,
                "success": None,
                "optimality": None,
            }
            if starts:
                row["success"] = _rate(self.successes[part], self.starts[part])
                row["optimality"] = _rate(self.optimal[part], self.starts[part])
            rows.append(row)
        return rows

    def published_rates(self) -> tuple[float, float]:
        """(success, optimality) as the published code averages them: over mazes, and over all open states of a maze.

        There the goal counts as reached, and a state without a path counts as optimal but not as a success.
        """
        open_states = (self.maze_starts + self.maze_unreachable + 1).double()
        success = (self.maze_successes + 1) / open_states
        optimal = (self.maze_optimal + self.maze_unreachable + 1) / open_states
        return float(success.mean()), float(optimal.mean())

    def __add__(self, other: Score) -> Score:
        return Score(
            starts=_sum(self.starts, other.starts),
            successes=_sum(self.successes, other.successes),
            optimal=_sum(self.optimal, other.optimal),
            maze_starts=torch.cat([self.maze_starts, other.maze_starts]),
            maze_successes=torch.cat([self.maze_successes, other.maze_successes]),
            maze_optimal=torch.cat([self.maze_optimal, other.maze_optimal]),
            maze_unreachable=torch.cat([self.maze_unreachable, other.maze_unreachable]),
            bins=self.bins,
        )


def evaluate(policy: Tensor, mazes: Mazes, bins: Sequence[int] = BINS) -> Score:
    """Follow a policy from every state of every maze.

    `policy` is actions, whole numbers `[N, O, H, W]`, or logits `[N, A, O, H, W]` of which the first largest is the
    action. Raises `InputError` for other shapes, actions that do not exist, logits that are nan, and bad `bins`.
    """
    ends = _checked(bins)
    actions = _actions(policy, mazes)
    chunk = max(1, _BLOCK // prod(mazes.distances.shape[1:]))
    score = _score(actions[:0], mazes[:0], ends)
    for start in range(0, len(mazes), chunk):
        part = slice(start, start + chunk)
        score += _score(actions[part], mazes[part], ends)
    return score


def _score(actions: Tensor, mazes: Mazes, bins: tuple[int, ...]) -> Score:
    steps = mazes.distances
    lengths = follow(actions, mazes)
    start = steps > 0
    success = start & (lengths > 0)
    optimal = start & (lengths == steps)
    longest = int(steps.max()) + 1 if steps.numel() else 1
    return Score(
        starts=torch.bincount(steps[start], minlength=longest),
        successes=torch.bincount(steps[success], minlength=longest),
        optimal=torch.bincount(steps[optimal], minlength=longest),
        maze_starts=start.flatten(1).sum(1),
        maze_successes=success.flatten(1).sum(1),
        maze_optimal=optimal.flatten(1).sum(1),
        maze_unreachable=(mazes.free[:, None] & (steps < 0)).flatten(1).sum(1),
        bins=bins,
    )


def follow(actions: Tensor, mazes: Mazes) -> Tensor:
    """Steps in which `actions[N, O, H, W]` lead from each state to the goal, int32 `[N, O, H, W]`; -1 if they never do.

    Pointer doubling: from the state after n steps and the steps taken, both after 2 n steps are one look-up each, so
    that paths of any length take log2(S) look-ups, and paths that never arrive take no longer.
    """
    count, *shape = actions.shape
    states = prod(shape)
    after = _following(actions, mazes)
    maze = torch.arange(count)
    goal = _flat_goal(mazes)
    after[maze, goal] = goal  # stay there
    first = states * maze[:, None]
    after, goal = (after + first).flatten(), goal + first[:, 0]
    steps = torch.ones(count * states, dtype=torch.int32)
    steps[goal] = 0
    # A path that arrives visits no state twice.
    longest = int(mazes.free.flatten(1).sum(1).max()) * mazes.mechanism.orientations if count else 0
    for _ in range(longest.bit_length()):
        steps += steps[after]
        after = after[after]
    arrived = after.view(count, states) == goal[:, None]
    arrived &= mazes.free[:, None].expand(count, *shape).flatten(1)
    return torch.where(arrived, steps.view(count, states), -1).view(count, *shape)


def trajectory(maze: Mazes, actions: Tensor, start: Sequence[int]) -> list[tuple[int, int, int]]:
    """States (orientation, row, column) that `actions[O, H, W]` lead through from `start`, which is the first.

    The last one is the goal, or the first state that comes a second time: from there on the path repeats itself.
    Raises `InputError` for more than one maze, and for a start that is not an open state of it.
    """
    require(len(maze) == 1, f"maze must be a set of one, got {len(maze)}")
    shape = (maze.mechanism.orientations, *maze.free.shape[1:])
    inside = len(start) == 3 and all(0 <= at < size for at, size in zip(start, shape, strict=True))
    require(
        inside and bool(maze.free[0, start[1], start[2]]), f"start must be an open state of {shape}, got {list(start)}"
    )
    after = _following(_actions(actions[None], maze), maze)[0].tolist()
    goal, (_, height, width) = int(_flat_goal(maze)), shape
    state = (start[0] * height + start[1]) * width + start[2]
    passed = [state]
    seen: set[int] = set()
    while state != goal and state not in seen:
        seen.add(state)
        state = after[state]
        passed.append(state)
    return [(at // (height * width), at // width % height, at % width) for at in passed]


def _following(actions: Tensor, mazes: Mazes) -> Tensor:
    """The flat state after the action of every state, `[N, S]`."""
    after = successors(mazes.free, mazes.mechanism)
    return after.gather(1, actions.flatten(1)[:, None].long())[:, 0]


def _flat_goal(mazes: Mazes) -> Tensor:
    _, height, width = mazes.free.shape
    orientation, row, column = mazes.goal.T
    return (orientation * height + row) * width + column


def _actions(policy: Tensor, mazes: Mazes) -> Tensor:
    """The actions of a policy on the CPU, checked."""
    states = (mazes.mechanism.orientations, *mazes.free.shape[1:])
    actions, logits = (len(mazes), *states), (len(mazes), mazes.mechanism.actions, *states)
    kind = str(policy.dtype).removeprefix("torch.")
    require(
        policy.shape in (actions, logits),
        f"policy must be actions {list(actions)} or logits {list(logits)}, got {list(policy.shape)}",
    )
    if policy.shape == logits:
        require(not bool(policy.isnan().any()), "policy must be logits without nan, got nan")
        return policy.argmax(1).cpu()
    whole = not (policy.is_floating_point() or policy.is_complex() or policy.dtype == torch.bool)
    require(whole, f"policy must be actions as whole numbers, got {kind}")
    if policy.numel():
        low, high = int(policy.min()), int(policy.max())
        require(
            low >= 0 and high < mazes.mechanism.actions,
            f"policy must be actions from 0 to {mazes.mechanism.actions - 1}, got {low if low < 0 else high}",
        )
    return policy.cpu()


def _checked(edges: Sequence[int]) -> tuple[int, ...]:
    ends = tuple(int(edge) for edge in edges)
    require(all(low < high for low, high in pairwise((0, *ends))), f"bins must rise from 1 on, got {ends}")
    return ends


def _rate(part: Tensor, whole: Tensor) -> float:
    total = int(whole.sum())
    return int(part.sum()) / total if total else float("nan")


def _sum(left: Tensor, right: Tensor) -> Tensor:
    total = torch.zeros(max(len(left), len(right)), dtype=torch.int64)
    total[: len(left)] += left
    total[: len(right)] += right
    return total
