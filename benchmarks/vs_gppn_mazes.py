"""Mazes with their labels, and the evaluation of a policy, against the published way: one maze and cell at a time.

The peer is the protocol of "Gated Path Planning Networks" (arXiv:1806.06408) written plainly from its description: a
depth-first search with a stack over a numpy array and `np.random.permutation`, a loop that opens walls, Dijkstra's
search from the goal over a heap with a function call for the neighbours of a state, one optimal action per state read
off the distances, and for the evaluation a walk from every open cell, which ends at the goal or where it repeats.
Where the published code has a heap of its own in Python, the peer has the faster `heapq`. Our side makes the mazes and
every optimal action. Mazes are NEWS, decimation from 0 to 1; the unit is one maze.
Run: `python benchmarks/vs_gppn_mazes.py`.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import _bench  # before torch: it asks for one thread

import torch  # isort: skip
from torch import Tensor

from mindworks.planning.evaluation import evaluate, follow
from mindworks.planning.mazes import Mazes, generate

State = tuple[int, int, int]
DIRECTIONS = ((-1, 0), (0, 1), (0, -1), (1, 0))


def make_maze(size: int, decimation: float) -> np.ndarray:
    """A maze, 1 open and 0 wall, by a depth-first search with a stack."""
    maze = np.zeros((size, size))
    stack = [((1, 1), (0, 0))]
    while stack:
        (row, column), (down, right) = stack.pop()
        if maze[row][column] == 1.0:
            continue
        maze[row][column] = 1.0
        maze[row - down][column - right] = 1.0
        for direction in np.random.permutation(np.arange(4)):  # noqa: NPY002
            down, right = DIRECTIONS[direction]
            at = row + 2 * down, column + 2 * right
            if 0 <= at[0] < size and 0 <= at[1] < size and maze[at[0]][at[1]] == 0.0:
                stack.append((at, (down, right)))
    for row in range(1, size - 1):
        for column in range(1, size - 1):
            if np.random.uniform() < decimation:  # noqa: NPY002
                maze[row][column] = 1.0
    return maze


def make_goal(maze: np.ndarray) -> State:
    """A goal inside, away from (1, 1); its cell is opened."""
    goal = (1, 1)
    while goal == (1, 1):
        goal = tuple(np.random.randint(1, len(maze) - 1, 2).tolist())  # noqa: NPY002
    maze[goal[0]][goal[1]] = 1.0
    return (0, *goal)


def neighbours(maze: np.ndarray, state: State) -> list[State]:
    """The state after every action."""
    orientation, row, column = state
    after = []
    for down, right in DIRECTIONS:
        at = row + down, column + right
        inside = 0 <= at[0] < maze.shape[0] and 0 <= at[1] < maze.shape[1]
        after.append((orientation, *at) if inside and maze[at[0]][at[1]] != 0.0 else state)
    return after


def search(maze: np.ndarray, goal: State) -> np.ndarray:
    """Steps to the goal `[1, H, W]`, as many as there are states where it cannot be reached."""
    steps = np.full((1, *maze.shape), maze.size)
    steps[goal] = 0
    heap, done = [(0, goal)], set()
    while heap:
        taken, state = heapq.heappop(heap)
        if state in done:
            continue
        done.add(state)
        for before in neighbours(maze, state):  # of four directions the inverse moves are the moves
            if taken + 1 < steps[before]:
                steps[before] = taken + 1
                heapq.heappush(heap, (taken + 1, before))
    return steps


def extract_policy(maze: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """One best action of every state `[4, 1, H, W]`, ties drawn."""
    policy = np.zeros((4, *steps.shape))
    for state in np.ndindex(steps.shape):
        best, actions = sys.maxsize, []
        for action, after in enumerate(neighbours(maze, state)):
            if steps[after] < best:
                best, actions = steps[after], [action]
            elif steps[after] == best:
                actions.append(action)
        policy[(actions[np.random.randint(len(actions))], *state)] = 1.0  # noqa: NPY002
    return policy


def plain_data(count: int, size: int) -> list[Any]:
    """Mazes, goals and policies, one at a time."""
    made = []
    for _ in range(count):
        maze = make_maze(size, np.random.uniform())  # noqa: NPY002
        goal = make_goal(maze)
        made.append((maze, goal, extract_policy(maze, search(maze, goal))))
    return made


def our_data(count: int, size: int) -> Mazes:
    """Mazes and every optimal action."""
    mazes = generate(count, size, seed=0)
    mazes.optimal  # noqa: B018 - computed when asked for
    return mazes


def plain_follow(maze: np.ndarray, goal: State, actions: np.ndarray) -> np.ndarray:
    """Steps to the goal `[1, H, W]` by a walk from every open cell; -1 where it repeats itself before."""
    lengths = np.full(actions.shape, -1)
    for start in np.ndindex(actions.shape):
        if maze[start[1]][start[2]] == 0.0:
            continue
        state, seen = start, set()
        while state != goal and state not in seen:
            seen.add(state)
            state = neighbours(maze, state)[actions[state]]
        if state == goal:
            lengths[start] = len(seen)
    return lengths


def noisy_policy(mazes: Mazes, wrong: float) -> Tensor:
    """Optimal actions, a share of them replaced by any."""
    generator = torch.Generator().manual_seed(0)
    best = mazes.optimal.int().argmax(1)
    other = torch.randint(4, best.shape, generator=generator)
    return torch.where(torch.rand(best.shape, generator=generator) < wrong, other, best)


def plain(mazes: Mazes) -> list[tuple[np.ndarray, State]]:
    """The same mazes as the peer holds them."""
    return [
        (free, (int(o), int(row), int(column)))
        for free, (o, row, column) in zip(mazes.free.double().numpy(), mazes.goal.tolist(), strict=True)
    ]


def same_numbers(size: int) -> None:
    """On the same mazes and policies both sides must give the same distances, choices and walks."""
    mazes = generate(20, size, seed=1)
    actions = noisy_policy(mazes, 0.1)
    ours = follow(actions, mazes).numpy()
    for maze, (free, goal) in enumerate(plain(mazes)):
        steps = search(free, goal)
        found = np.where(steps == free.size, -1, steps)
        found[0][free == 0] = -1
        if (found != mazes.distances[maze].numpy()).any():
            raise SystemExit(f"the sides differ: distances of maze {maze} of size {size}")
        chosen = extract_policy(free, steps)[:, found > 0]
        if (chosen > mazes.optimal[maze].numpy()[:, found > 0]).any():
            raise SystemExit(f"the sides differ: policy of maze {maze} of size {size}")
        if (plain_follow(free, goal, actions[maze].numpy()) != ours[maze]).any():
            raise SystemExit(f"the sides differ: walks in maze {maze} of size {size}")


def timed(case: str, ours: Callable[[int], Any], peer: Callable[[int], Any], many: int, few: int, bar: float) -> Any:
    """A row of seconds per maze: ours makes `many`, the peer `few`, each in calls of a second or less."""
    ours_s, peer_s = _bench.compare(lambda: ours(many), lambda: peer(few))
    return _bench.row(case, ours_s / many, peer_s / few, bar, mazes=many, peer_mazes=few)


def evaluation_case(size: int, many: int, few: int) -> Any:
    """Time the evaluation of a policy of which one action in ten is drawn at random."""
    mazes = our_data(many, size)
    actions = noisy_policy(mazes, 0.1)
    held = [(*one, chosen) for one, chosen in zip(plain(mazes[:few]), actions.numpy(), strict=False)]
    return timed(
        f"evaluation, {size} x {size}",
        lambda count: evaluate(actions[:count], mazes[:count]),
        lambda count: [plain_follow(*one) for one in held[:count]],
        many,
        few,
        bar=0,
    )


def main() -> int:
    torch.set_num_threads(1)
    np.random.seed(0)  # noqa: NPY002
    for size in (15, 25):
        same_numbers(size)
    rows = [
        timed("mazes and labels, 15 x 15", lambda n: our_data(n, 15), lambda n: plain_data(n, 15), 5000, 50, bar=50),
        timed("mazes and labels, 25 x 25", lambda n: our_data(n, 25), lambda n: plain_data(n, 25), 2000, 20, bar=50),
        evaluation_case(15, 5000, 20),
        evaluation_case(25, 2000, 8),
    ]
    return 0 if _bench.write("vs_gppn_mazes", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
