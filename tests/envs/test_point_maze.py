"""A ball in mazes of our own: coordinates, walls, endings, and a controller that follows plans made on the grid."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mindworks.envs.point_maze import MOVES, Controller, PointMaze, follow, point_maze
from mindworks.errors import InputError, MissingExtra
from mindworks.planning.mazes import Mazes, generate
from mindworks.planning.mechanisms import MOORE, NEWS

U_TURN = np.array([[1, 1, 1], [0, 0, 1], [1, 1, 1]])  # from the top left to the bottom left, around
EAST, WEST = 1, 2


def made(free, start, goal, **options) -> PointMaze:
    pytest.importorskip("gymnasium_robotics")
    return point_maze(free, start, goal, **options)


def exact(free, goal, mechanism="news"):
    """A shortest-path policy `[1, H, W]` and the distances `[H, W]`."""
    mazes = Mazes.from_arrays(np.asarray(free)[None], np.array([[0, *goal]]), mechanism)
    return mazes.optimal[0].int().argmax(0), mazes.distances[0, 0].numpy()


def farthest(steps):
    return tuple(int(i) for i in np.unravel_index(steps.argmax(), steps.shape))


def entered_no_wall(env, ride):
    return all(env.free[env.cell(position)] for position in ride.path)


def test_moves_are_those_of_the_planners():
    assert tuple((0, *move) for move in MOVES) == MOORE.moves[0]
    assert tuple((0, *move) for move in MOVES[: NEWS.actions]) == NEWS.moves[0]


@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (35, 35)])
def test_cells_and_positions_go_round(shape):
    env = made(np.ones(shape), (0, 0), (shape[0] - 1, 0))
    rng = np.random.default_rng(0)
    for cell in {(0, 0), (shape[0] - 1, shape[1] - 1), (1, 2), (2, 0)}:
        centre = env.position(cell)
        np.testing.assert_allclose(centre, [cell[1] + 0.5 - shape[1] / 2, shape[0] / 2 - cell[0] - 0.5])
        assert env.cell(centre) == cell
        assert env.cell(centre + rng.uniform(-0.49, 0.49, 2)) == cell
    assert env.cell(env.position((-1, shape[1]))) == (-1, shape[1])


def test_the_walls_stand_where_the_map_has_them():
    env = made(U_TURN, (0, 0), (2, 0))
    model = env.unwrapped.model
    walls = {env.cell(model.geom(i).pos[:2]) for i in range(model.ngeom) if model.geom(i).name.startswith("block")}
    ring = {(i, j) for i in range(-1, 4) for j in range(-1, 4) if not (0 <= i < 3 and 0 <= j < 3)}
    assert walls == {(1, 0), (1, 1)} | ring


def test_the_physics_are_those_of_a_pushed_mass():
    env = made(np.ones((1, 9)), (0, 0), (0, 8))
    observed, _ = env.reset()
    np.testing.assert_allclose(observed["observation"], [*env.position((0, 0)), 0, 0], atol=1e-12)
    mass = 1000 * 4 / 3 * np.pi * 0.1**3
    velocity = 0.0
    for _ in range(10):
        observed, reward, terminated, truncated, _ = env.step(np.array([0.5, 0.0]))
        velocity = (velocity + 0.01 * 50 / mass) / (1 + 0.01 * 1.0 / mass)  # implicit in the damping of 1 N s/m
        assert (reward, terminated, truncated) == (0.0, False, False)
    np.testing.assert_allclose(observed["observation"][2:], [velocity, 0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("mechanism", ["news", "moore"])
@pytest.mark.parametrize("noise", [0.0, 0.25])
def test_a_shortest_path_is_followed_to_the_goal(mechanism, noise):
    loops = {"news": 0.2, "moore": 0.0}[mechanism]  # without loops no diagonal leads between two walls
    mazes = generate(5, 15, mechanism=mechanism, decimation=(0.0, loops), seed=3)
    for index in range(len(mazes)):
        maze = mazes[index]
        steps, plan = maze.distances[0, 0].numpy(), maze.optimal[0].int().argmax(0)
        start, goal = farthest(steps), tuple(maze.goal[0, 1:].tolist())
        env = made(maze.free[0], start, goal, noise=noise)
        ride = follow(env, plan, seed=index)
        assert ride.success
        assert entered_no_wall(env, ride)
        assert 15 < ride.steps / steps.max() < 40
        assert ride.path.shape == (ride.steps + 1, 2)
        assert env.cell(ride.path[0]) == start == tuple(ride.cells[0])
        assert tuple(ride.cells[-1]) == goal or noise
        assert 0.5 * steps.max() < ride.length < 1.5 * steps.max() + 2


def test_every_start_of_one_environment_reaches_every_goal_of_it():
    env = made(U_TURN, (0, 0), (2, 0), noise=0.2)
    cells = [tuple(map(int, cell)) for cell in np.argwhere(U_TURN)]
    for goal in cells:
        plan, _ = exact(U_TURN, goal)
        for start in cells:
            ride = follow(env, plan[0], start=start, goal=goal, seed=1)
            assert ride.success
            assert (env.cell(ride.path[0]), env.cell(env.unwrapped.goal)) == (start, goal)
            assert (ride.steps == 0) <= (start == goal)


def test_a_plan_that_leads_nowhere_fails_and_the_walls_hold():
    maze = generate(1, 9, decimation=(0.0, 0.0), seed=0)[0]
    steps, goal = maze.distances[0, 0].numpy(), tuple(maze.goal[0, 1:].tolist())
    env = made(maze.free[0], farthest(steps), goal, max_steps=500)
    backwards = 3 - maze.optimal[0].int().argmax(0)  # the opposite of every action
    rng = np.random.default_rng(0)
    for plan in (backwards, np.zeros((9, 9), int), rng.integers(0, 8, (9, 9))):
        ride = follow(env, plan, controller=Controller(stiffness=50.0, damping=0.0))
        assert (ride.success, ride.steps) == (False, 500)
        assert entered_no_wall(env, ride)


@pytest.mark.parametrize("direction", [(1, 0), (0, 1), (1, 1), (-1, 0.3)])
def test_full_force_leads_into_no_wall_and_out_of_no_map(direction):
    env = made(np.ones((3, 3)), (1, 1), (0, 0))
    observed, _ = env.reset()
    for _ in range(300):
        observed, *_ = env.step(np.array(direction))
        assert np.abs(observed["observation"][:2]).max() < 1.5 - 0.05  # half of the map less half of the ball's radius
        assert np.abs(observed["observation"][2:]).max() < 5.3


def test_a_diagonal_passes_one_wall_and_not_two():
    free = np.array([[1, 0], [1, 1]])
    plan, steps = exact(free, (1, 1), "moore")
    assert (int(plan[0, 0, 0]), steps[0, 0]) == (MOVES.index((1, 1)), 1)
    for open_cells in (free, free.T, np.ones((2, 2))):
        env = made(open_cells, (0, 0), (1, 1))
        ride = follow(env, plan)
        assert ride.success
        assert ride.length < 1.5
        assert entered_no_wall(env, ride)
    assert not follow(made(np.eye(2), (0, 0), (1, 1), noise=0.25), plan, seed=0).success


def test_a_ball_that_gets_elsewhere_goes_on_from_there():
    free = np.ones((3, 5), int)
    free[1, :4] = 0
    env = made(free, (0, 0), (2, 0))
    plan, _ = exact(free, (2, 0))
    push, pushed = env.step, []

    def shoved(action):
        outcome = push(action)
        if not pushed and env.cell(outcome[0]["observation"][:2]) == (0, 1):
            pushed.append(env.position((2, 3)))
            env.unwrapped.point_env.set_state(pushed[0], np.zeros(2))
        return outcome

    env.step = shoved
    ride = follow(env, plan)
    assert len(pushed) == 1
    assert ride.success
    assert (0, 4) not in map(tuple, ride.cells)


def test_in_the_cell_of_the_goal_the_goal_counts_and_not_the_plan():
    env = made(np.ones((1, 5)), (0, 0), (0, 2), noise=0.25, max_steps=1000)
    away = np.array([[EAST, EAST, WEST, WEST, WEST]])  # a ball that obeys turns back on entering the goal's cell
    slow = Controller(stiffness=1.0, damping=2.0, reach=0.5)
    rides = [follow(env, away, seed=seed, controller=slow) for seed in range(6)]
    assert all(ride.success for ride in rides)
    assert {len(ride.cells) for ride in rides} == {2, 3}  # a near goal is reached from the cell before


def test_an_episode_ends_at_the_goal_or_at_its_limit():
    env = made(np.ones((1, 3)), (0, 0), (0, 2), max_steps=20)
    env.reset()
    endings = [env.step(np.zeros(2))[2:4] for _ in range(20)]
    assert endings == [(False, False)] * 19 + [(False, True)]
    _, info = env.reset(options={"start": (0, 2)})
    assert info["success"]
    _, reward, terminated, truncated, info = env.step(np.zeros(2))
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)
    _, info = env.reset()
    assert not info["success"]  # the options hold for one episode


def test_a_large_maze_without_loops():
    maze = generate(1, 35, decimation=(0.0, 0.0), seed=5)[0]
    steps, goal = maze.distances[0, 0].numpy(), tuple(maze.goal[0, 1:].tolist())
    env = made(maze.free[0], farthest(steps), goal)
    ride = follow(env, maze.optimal[0].int().argmax(0))
    assert ride.success
    assert len(ride.cells) == steps.max() + 1 > 150
    assert entered_no_wall(env, ride)


def test_the_same_seed_gives_the_same_ride_and_another_one_does_not():
    plan, _ = exact(U_TURN, (2, 0))
    env = made(U_TURN, (0, 0), (2, 0), noise=0.25)
    first, again, other = (follow(env, plan, seed=seed) for seed in (4, 4, 5))
    elsewhere = follow(made(U_TURN, (0, 0), (2, 0), noise=0.25), plan, seed=4)
    np.testing.assert_array_equal(first.path, again.path)
    np.testing.assert_array_equal(first.path, elsewhere.path)
    assert not np.array_equal(first.path[0], other.path[0])


@pytest.mark.filterwarnings("ignore")  # unbounded observations, and a wrapper
def test_gymnasiums_checker_passes():
    check_env(made(U_TURN, (0, 0), (2, 0), noise=0.1), skip_render_check=True)


def test_building_leaves_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made(U_TURN, (0, 0), (2, 0)).reset()
    assert list(tmp_path.iterdir()) == []


BAD = [
    ({"free": np.ones((1, 3, 3))}, "free must be a map [H, W] of zeros and ones, got float64 [1, 3, 3]"),
    ({"free": np.full((3, 3), 2)}, "free must hold zeros and ones, got [2]"),
    ({"free": [["a"]]}, "free must be a map [H, W]"),
    ({"start": (1, 0)}, "start must be an open cell, got the wall (1, 0)"),
    ({"start": (0, 3)}, "start must lie inside (3, 3) (rows, columns), got (0, 3)"),
    ({"start": (-1, 0)}, "start must lie inside"),
    ({"start": (0.5, 0)}, "start must be a cell (row, column), got (0.5, 0)"),
    ({"goal": (1, 1)}, "goal must be an open cell, got the wall (1, 1)"),
    ({"goal": (0, 2, 0)}, "goal must be a cell (row, column), got (0, 2, 0)"),
    ({"noise": 0.3}, "noise must be in [0, 0.25] metres, got 0.3"),
    ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_mazes_are_refused_in_one_line(change, message):
    with pytest.raises(InputError) as caught:
        point_maze(**{"free": U_TURN, "start": (0, 0), "goal": (2, 0)} | change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_plans_and_episodes_are_refused_in_one_line():
    env = made(U_TURN, (0, 0), (2, 0))
    plan = np.zeros((3, 3), int)
    for actions, message in (
        (np.zeros((3, 4), int), "actions must be whole numbers [3, 3], got int64 [3, 4]"),
        (np.zeros((4, 3, 3), int), "got int64 [4, 3, 3]"),
        (np.zeros((3, 3)), "got float64 [3, 3]"),
        (plan + 8, "actions must be in [0, 7], got 8"),
        (plan - 1, "actions must be in [0, 7], got -1"),
    ):
        with pytest.raises(InputError, match=r"^actions") as caught:
            follow(env, actions)
        assert message in str(caught.value)
    with pytest.raises(InputError, match="goal must be an open cell"):
        follow(env, plan, goal=(1, 0))
    with pytest.raises(InputError, match="options must be start and goal, got 'reset_cell'"):
        env.reset(options={"reset_cell": (0, 0)})


def test_a_missing_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("gymnasium_robotics")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mindworks\[robotics\]'"):
        point_maze(U_TURN, (0, 0), (2, 0))
