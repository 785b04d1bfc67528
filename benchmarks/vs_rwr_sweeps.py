"""An iteration of reward-weighted regression in four rooms: direct solves against sweeps.

The first peer is the form of the published code, written plainly: Python loops over cells and actions, cells as small
arrays that are copied, a policy that is called, float32 tables updated in place until nothing changes by 1e-7, and
values swept twice, once for V and again for Q. It runs with the checks of every cell that the code makes, and without
them, as under `python -O`. The second peer does the same arithmetic once, with lists and floats. The third is strong:
numpy sweeps over all cells at once, for one seed and for 100. The unit is one iteration of one seed: V, Q and the new
policy.
Run: `python benchmarks/vs_rwr_sweeps.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

import _bench  # before torch: it asks for one thread

import torch  # isort: skip
from torch import Tensor

from mindworks.core.finite_mdp import four_rooms
from mindworks.core.mdp_examples import FOUR_ROOMS, MOVES, cells
from mindworks.studies.rwr import first_policies
from mindworks.tabular import rwr_step

EPSILON, DISCOUNT, STEP_REWARD, SEEDS = 1e-7, 0.9, 1e-3, 100
Array = np.ndarray


class Grid:
    """Four rooms as a class that is asked cell by cell: the form of the published code."""

    def __init__(self, checked: bool) -> None:
        self.checked = checked
        self.walls = np.array([[mark == "#" for mark in row] for row in FOUR_ROOMS.split()])
        self.goal = np.array([9, 9])

    def is_goal(self, cell: Array) -> bool:
        return bool(cell[0] == self.goal[0] and cell[1] == self.goal[1])

    def check(self, cell: Array) -> None:
        if len(cell) != 2 or not (0 < cell[0] < 10 and 0 < cell[1] < 10) or self.walls[cell[0], cell[1]]:
            raise ValueError(cell)

    def following(self, action: int, cell: Array) -> Array:
        cell = np.copy(cell)
        if self.checked:
            self.check(cell)
        if not self.is_goal(cell):
            dy, dx = MOVES[action]
            if not self.walls[cell[0] + dy, cell[1] + dx]:
                cell[0] += dy
                cell[1] += dx
        return cell

    def reward(self, cell: Array, following: Array) -> float:
        if self.checked:
            self.check(cell)
            self.check(following)
        return 1.0 if self.is_goal(following) and not self.is_goal(cell) else STEP_REWARD

    def state_values(self, policy: Callable[[int, Array], float]) -> Array:
        value = np.zeros((11, 11), np.float32)
        change = np.inf
        while change > EPSILON:
            change = 0.0
            for y in range(11):
                for x in range(11):
                    if self.walls[y, x]:
                        continue
                    cell, new = np.array([y, x]), 0.0
                    for action in range(4):
                        after = self.following(action, cell)
                        ahead = self.reward(cell, after) + DISCOUNT * value[after[0], after[1]]
                        new += policy(action, cell) * ahead
                    change = max(change, abs(value[y, x] - new))
                    value[y, x] = new
        return value

    def action_values(self, policy: Callable[[int, Array], float]) -> Array:
        value = self.state_values(policy)
        q = np.zeros((11, 11, 4), np.float32)
        for y, x in np.argwhere(~self.walls):
            for action in range(4):
                cell = np.array([y, x])
                after = self.following(action, cell)
                q[y, x, action] = self.reward(cell, after) + DISCOUNT * value[after[0], after[1]]
        return q


def published_form(policy: Tensor, checked: bool) -> Array:
    """The next policy `[68, 4]`, cell by cell on a grid."""
    grid, place = Grid(checked), cells(FOUR_ROOMS).numpy()
    weights = np.zeros((11, 11, 4))
    weights[place[:, 0], place[:, 1]] = policy.numpy()

    def probability(action: int, cell: Array) -> float:
        return weights[cell[0], cell[1], action]

    value, q = grid.state_values(probability), grid.action_values(probability)
    for y, x in place:
        for action in range(4):
            weights[y, x, action] *= q[y, x, action] / value[y, x]
    return weights[place[:, 0], place[:, 1]]


def lean_loops(policy: list, following: list, reward: list) -> Array:
    """The same sweeps, once, over lists of numbers and an index of what follows."""
    value, change = [0.0] * len(policy), float("inf")
    while change > EPSILON:
        change = 0.0
        for s, (row, after, rewards) in enumerate(zip(policy, following, reward, strict=True)):
            new = 0.0
            for a in range(4):
                new += row[a] * (rewards[a] + DISCOUNT * value[after[a]])
            change, value[s] = max(change, abs(new - value[s])), new
    return np.array(
        [
            [policy[s][a] * (reward[s][a] + DISCOUNT * value[following[s][a]]) / value[s] for a in range(4)]
            for s in range(len(policy))
        ]
    )


def numpy_sweeps(policy: Array, following: Array, reward: Array) -> Array:
    """All cells at once, for policies `[..., 68, 4]`."""
    expected = (policy * reward).sum(-1)
    value = np.zeros(policy.shape[:-1])
    while True:
        new = expected + DISCOUNT * (policy * value[..., following]).sum(-1)
        change, value = np.abs(new - value).max(), new
        if change <= EPSILON:
            break
    return policy * (reward + DISCOUNT * value[..., following]) / value[..., None]


def main() -> int:
    torch.set_num_threads(1)
    mdp, policies = four_rooms(), first_policies(list(range(SEEDS)))
    one, arrays = policies[0], policies.numpy()
    following, reward = mdp.successor.numpy(), mdp.reward.numpy()
    lists = [part.tolist() for part in (arrays[0], following, reward)]
    peers: dict[str, Callable[[], Array]] = {
        "published form": lambda: published_form(one, False),
        "published form, with checks": lambda: published_form(one, True),
        "lean Python loops": lambda: lean_loops(*lists),
        "numpy sweeps": lambda: numpy_sweeps(arrays[0], following, reward),
        f"numpy sweeps, {SEEDS} seeds": lambda: numpy_sweeps(arrays, following, reward),
    }
    wanted = [rwr_step(mdp, policy)[0].numpy() for policy in (one, one, one, one, policies)]
    for (name, peer), ours in zip(peers.items(), wanted, strict=True):
        if (gap := np.abs(peer() - ours).max()) > 1e-4:
            raise SystemExit(f"the sides differ: {name} is off by {gap:.2e}")

    def iterations(policy: Tensor, count: int) -> Callable[[], None]:
        def go() -> None:
            following = policy
            for _ in range(count):
                following, _ = rwr_step(mdp, following)

        return go

    single, batch = (iterations(one, 50), 50), (iterations(policies, 5), 5 * SEEDS)
    plain, checked, lean, swept, swept_batch = peers.values()
    cases = [
        ("published form, one seed", single, plain, 1, 1000),
        (f"published form, ours {SEEDS} seeds at once", batch, plain, 1, 1000),
        ("published form with its checks, one seed", single, checked, 1, 1000),
        ("lean Python loops, one seed", single, lean, 1, 0),
        ("numpy sweeps, one seed", single, swept, 1, 0),
        (f"numpy sweeps, {SEEDS} seeds at once", batch, swept_batch, SEEDS, 0),
    ]
    rows = []
    for case, (ours, units), peer, peer_units, bar in cases:
        ours_s, peer_s = _bench.compare(ours, peer)
        rows.append(_bench.row(case, ours_s / units, peer_s / peer_units, bar))
    return 0 if _bench.write("vs_rwr_sweeps", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
