"""The MinAtar games equal the package's frame by frame when both draw alike; rows depend on nothing but their seed."""

from __future__ import annotations

import sys
import zlib

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.envs import make_batch, rollout
from mindworks.envs.minatar import GAMES, MinAtarEnv, MinAtarGym, _bind, asterix, breakout, seaquest, space_invaders
from mindworks.envs.minatar._common import seeded, uniform
from mindworks.envs.rollout import Trajectories
from mindworks.errors import InputError, MissingExtra

MASK = (1 << 64) - 1
EVERY_GAME = pytest.mark.parametrize("game", sorted(GAMES))


def mix(word: int) -> int:
    """SplitMix64's mixing of a word, in Python's integers."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


class Draws:
    """What the package asks of numpy's RandomState, drawn from the stream of one row."""

    def __init__(self, seed: int) -> None:
        self.word = mix(seed)

    def rand(self, count: int | None = None):
        """One float64 in [0, 1), or an array of them."""
        if count is not None:
            return np.array([self.rand() for _ in range(count)])
        self.word = (self.word + 0x9E3779B97F4A7C15) & MASK
        return (mix(self.word) >> 11) / 2**53

    def randint(self, low: int, high: int | None = None, size: int | None = None):
        """Integers from `low` to `high - 1`, or from 0 to `low - 1`."""
        low, high = (0, low) if high is None else (low, high)
        if size is not None:
            return np.array([self.randint(low, high) for _ in range(size)])
        return low + int(self.rand() * (high - low))


def played(env, steps: int, seed: int = 0, rows: slice = slice(None)):
    """Frames `[T, K, C, 10, 10]`, rewards and endings `[T, K]` of random actions, restarting whoever ends.

    The actions are drawn for 8 rows, of which the environment plays `rows`.
    """
    rng, living, tape = np.random.default_rng(seed), np.ones(env.num_envs, bool), []
    for _ in range(steps):
        actions = rng.integers(env.single_action_space.n, size=8)[rows]
        frames, rewards, terminated, truncated = env.step(actions, living)
        over = terminated | truncated
        if over.any():
            frames[over] = env.restart(over)
        tape.append((frames, rewards, over))
    return [np.stack(part) for part in zip(*tape, strict=True)]


# -- against the package ---------------------------------------------------------------------------------------------


def skilled(game: str, state: np.ndarray, rng: np.random.Generator) -> int:
    """An action that gets further than chance, from a frame `[10, 10, C]`."""
    if game == "breakout" and rng.random() < 0.9:
        paddle, ball = (int(np.argwhere(state[:, :, channel])[0][1]) for channel in (0, 1))
        return 1 if ball < paddle else 3 if ball > paddle else 0
    if game == "seaquest" and state[9, :, 8].sum() == 6 and rng.random() < 0.8:
        return 2
    if game == "freeway" and rng.random() < 0.85:
        return 2
    if game == "space_invaders":
        return int(rng.choice([1, 3, 5, 5]))
    return int(rng.choice([1, 2, 3, 4, 4, 5, 5, 5])) if game == "seaquest" else int(rng.integers(6))


def nudge_breakout(ours, game, t: int) -> None:
    """Leave a single brick."""
    ours[breakout.BRICKS : breakout.BRICKS + 4] = [0, 0, 0, 1 << t % 10]
    game.brick_map[:] = 0
    game.brick_map[3, t % 10] = 1


def nudge_asterix(ours, game, t: int) -> None:
    """Fill the rows, at some speed, shortly before the next step of the ramp."""
    game.spawn_speed, game.move_speed = ours[[asterix.SPAWN_EVERY, asterix.MOVE_EVERY]] = 2 + t % 2, 1 + t % 3
    game.ramp_timer, game.ramp_index = ours[[asterix.RAMP_IN, asterix.RAMPS]] = t % 4, t % 2


def nudge_freeway(ours, game, t: int) -> None:
    """Nothing: the skill of the player is enough."""


def nudge_space_invaders(ours, game, t: int) -> None:
    """Few aliens, now and then low ones or one that a row of shots will meet."""
    top, doomed = [1, 5, 9, 3][t % 4], t % 4 == 3
    game.alien_map[:] = 0
    game.alien_map[top, t % 7 : t % 7 + 2 - doomed] = 1
    ours[space_invaders.ALIENS : space_invaders.ALIENS + 10] = 0
    ours[space_invaders.ALIENS + top] = (0b01 if doomed else 0b11) << t % 7
    if doomed:
        game.f_bullet_map[6] = 1
        ours[space_invaders.SHOTS + 6] = 0b1111111111


def nudge_seaquest(ours, game, t: int) -> None:
    """Traffic, divers aboard, one more above, some oxygen, and a shot before a fish and a submarine in one cell."""
    game.e_spawn_speed, game.move_speed = ours[[seaquest.SPAWN_EVERY, seaquest.MOVE_EVERY]] = 1 + t % 3, 2 + t % 4
    game.diver_count, game.oxygen = ours[[seaquest.DIVERS, seaquest.OXYGEN]] = [0, 6, 5, -1][t % 4], 1 + 67 * t % 199
    game.ramp_index = ours[seaquest.RAMPS] = t % 2
    y = 1 + t % 8
    game.f_bullets.append([4, y, True])
    game.e_fish.append([5, y, True, 3])
    game.e_subs.append([5, y, True, 3, 10])
    seaquest._add(ours, seaquest.SHOT, seaquest.FEW, 4, y, 1, 0)
    x, above = game.sub_x, max(1, game.sub_y - 1)
    game.divers.append([x, above, True, 5])
    seaquest._add(ours, seaquest.DIVER, seaquest.FEW, x, above, 1, 5)
    for things in (seaquest.FISH, seaquest.SUB):
        seaquest._add(ours, things, seaquest.ENEMIES, 5, y, 1, 3)


@EVERY_GAME
@pytest.mark.parametrize(("sticky", "ramping", "nudged"), [(0.1, True, False), (0.0, True, True), (0.4, False, True)])
def test_every_frame_is_the_package_s(game: str, sticky: float, ramping: bool, nudged: bool) -> None:
    package = pytest.importorskip("minatar").Environment(game, sticky_action_prob=sticky, difficulty_ramping=ramping)
    env = MinAtarEnv(game, 1, sticky_action_prob=sticky, difficulty_ramping=ramping, minimal_actions=False)
    nudge, rng, living = globals()[f"nudge_{game}"], np.random.default_rng(3), np.ones(1, bool)
    package.random = package.env.random = Draws(11)
    package.reset()
    np.testing.assert_array_equal(env.reset([11])[0], package.state().transpose(2, 0, 1))
    earned, ended = 0.0, 0
    for t in range(2600 if game == "freeway" else 1500):
        if nudged and t % 37 == 20:
            nudge(env._states[0], package.env, t // 37)
        action = skilled(game, package.state(), rng)
        frames, rewards, terminated, truncated = env.step(np.array([action]), living)
        reward, over = package.act(action)
        assert (rewards[0], terminated[0], truncated[0]) == (reward, over, False), t
        np.testing.assert_array_equal(frames[0], package.state().transpose(2, 0, 1), err_msg=f"frame {t}")
        earned, ended = earned + reward, ended + over
        if over:
            package.reset()
            np.testing.assert_array_equal(env.restart([0])[0], package.state().transpose(2, 0, 1))
    assert ended >= 1
    assert earned > 3


@EVERY_GAME
def test_names_and_actions_are_the_package_s(game: str) -> None:
    package = pytest.importorskip("minatar").Environment(game)
    assert list(GAMES[game].MINIMAL) == package.minimal_action_set()
    assert len(GAMES[game].CHANNELS) == package.state_shape()[2]


# (rewards, endings, checksum of the frames) of 300 steps of 3 rows, seeds 5, 6 and 7; the package, given the same
# draws, made the same frames (minatar 1.0.15).
TRACES = {
    "asterix": (15, 11, 1_120_518_048),
    "breakout": (33, 92, 3_209_555_338),
    "freeway": (0, 0, 3_814_573_430),
    "seaquest": (2, 33, 822_179_420),
    "space_invaders": (65, 15, 2_338_935_383),
}


@EVERY_GAME
def test_stored_traces(game: str) -> None:
    env = MinAtarEnv(game, 3)
    first = env.reset([5, 6, 7])
    frames, rewards, over = played(env, 300, rows=slice(3))
    checksum = zlib.crc32(np.packbits(np.concatenate([first[None], frames])).tobytes())
    assert (int(rewards.sum()), int(over.sum()), checksum) == TRACES[game]


# -- rows ------------------------------------------------------------------------------------------------------------


@EVERY_GAME
def test_numba_computes_what_plain_python_does(game: str) -> None:
    pytest.importorskip("numba")
    compiled, plain = (MinAtarEnv(game, 8, compiled=how) for how in (True, False))
    np.testing.assert_array_equal(compiled.reset(range(8)), plain.reset(range(8)))
    for a, b in zip(played(compiled, 150), played(plain, 150), strict=True):
        np.testing.assert_array_equal(a, b)
    for key, value in compiled.state().items():
        np.testing.assert_array_equal(value, plain.state()[key])


@EVERY_GAME
def test_a_row_is_the_same_alone_and_among_others(game: str) -> None:
    many, alone = MinAtarEnv(game, 8), MinAtarEnv(game, 1)
    first = many.reset(range(40, 48))
    np.testing.assert_array_equal(alone.reset([45]), first[5:6])
    for all_rows, one in zip(played(many, 200), played(alone, 200, rows=slice(5, 6)), strict=True):
        np.testing.assert_array_equal(all_rows[:, 5:6], one)


@EVERY_GAME
def test_a_loaded_state_goes_on_bit_for_bit(game: str) -> None:
    env, fresh = MinAtarEnv(game, 8), MinAtarEnv(game, 8, dtype=np.float32)
    env.reset(range(8))
    played(env, 120, seed=1)
    living = np.arange(8) < 5
    before = env.step(np.zeros(8, int), living)[0]  # rows that stand still are part of the state
    state = env.state()
    onward = played(env, 120, seed=2)
    fresh.load(state)
    np.testing.assert_array_equal(fresh.step(np.zeros(8, int), np.zeros(8, bool))[0], before)
    for a, b in zip(onward, played(fresh, 120, seed=2), strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(isinstance(value, np.ndarray) and value.dtype != object for value in state.values())


def test_the_same_seed_twice_and_another_seed() -> None:
    env = MinAtarEnv("asterix", 8)
    runs = []
    for seed in (0, 0, 100):
        env.reset(range(seed, seed + 8))
        runs.append(played(env, 60)[0])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


def test_a_restart_touches_its_rows_alone_and_takes_numbers_or_booleans() -> None:
    envs = [MinAtarEnv("seaquest", 8) for _ in range(3)]
    for env in envs:
        env.reset(range(8))
        played(env, 40)
    before = envs[2].state()
    chosen = np.array([6, 1])
    started = envs[0].restart(chosen)
    np.testing.assert_array_equal(started, envs[1].restart(np.isin(np.arange(8), chosen)))
    assert started[:, seaquest.CHANNELS.index("front"), 0, 5].all()
    assert envs[0].restart([]).shape == (0, 10, 10, 10)
    others = [0, 2, 3, 4, 5, 7]
    for key, value in envs[0].state().items():
        np.testing.assert_array_equal(value[others], before[key][others])
    played(envs[2], 1)
    assert (envs[0].state()["elapsed"][chosen] == 0).all()


def test_an_ended_row_stands_still_until_it_is_restarted() -> None:
    env = MinAtarEnv("breakout", 4, sticky_action_prob=0.0)
    env.reset(range(4))
    over = np.zeros(4, bool)
    while not over.all():  # nobody moves: every ball is lost
        frames, _, terminated, _ = env.step(np.zeros(4, int), np.ones(4, bool))
        over |= terminated
    stood, rewards, terminated, _ = env.step(np.ones(4, int), np.ones(4, bool))
    np.testing.assert_array_equal(stood, frames)
    assert not rewards.any()
    assert not terminated.any()
    env.restart([2])
    moved = env.step(np.ones(4, int), np.ones(4, bool))[0]
    assert [(moved[i] != frames[i]).any() for i in range(4)] == [False, False, True, False]


def test_a_time_limit_truncates_and_a_restart_starts_its_clock_anew() -> None:
    env = MinAtarEnv("space_invaders", 2, max_episode_steps=5)
    env.reset([0, 1])
    step = np.zeros(2, int), np.ones(2, bool)
    flags = [env.step(*step)[2:] for _ in range(5)]
    assert not np.any([terminated for terminated, _ in flags])
    assert [truncated.tolist() for _, truncated in flags] == [[False] * 2] * 4 + [[True] * 2]
    env.restart([1])
    flags = [env.step(*step)[3].tolist() for _ in range(5)]
    assert flags == [[False, False]] * 4 + [[False, True]]


def test_freeway_terminates_after_its_own_2501_frames() -> None:
    env = MinAtarEnv("freeway", 2)
    env.reset([0, 1])
    played(env, 2500, rows=slice(2))
    assert env.state()["elapsed"].tolist() == [2500, 2500]
    _, _, terminated, truncated = env.step(np.zeros(2, int), np.ones(2, bool))
    assert terminated.all()
    assert not truncated.any()


def test_sticky_steps_repeat_the_action_before_as_often_as_asked() -> None:
    env = MinAtarEnv("space_invaders", 1000, sticky_action_prob=0.25)
    env.reset(range(1000))
    env.step(np.full(1000, 1), np.ones(1000, bool))
    frames = env.step(np.full(1000, 2), np.ones(1000, bool))[0]
    cannon = frames[:, 0, 9].argmax(1)
    # left, right from 5: 5; a repeated left: 3; at first nothing came before to repeat, so 6 and 5
    shares = [(cannon == cell).mean() for cell in (3, 5, 6)]
    np.testing.assert_allclose(shares, [0.75 * 0.25, 0.75 * 0.75 + 0.25 * 0.25, 0.25 * 0.75], atol=0.06)
    assert sum(shares) == 1


@given(seed=st.integers(0, MASK), count=st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_the_stream_is_splitmix64(seed: int, count: int) -> None:
    stream, expected = seeded([seed]), Draws(seed)
    with np.errstate(over="ignore"):
        assert [uniform(stream) for _ in range(count)] == [expected.rand() for _ in range(count)]
    assert int(stream[0]) == expected.word


def test_splitmix64_starts_as_published() -> None:
    # the first outputs of the published generator for the state 0; the seed 0 is mixed into the state 0
    with np.errstate(over="ignore"):
        drawn = [uniform(stream) for stream in [seeded([0])] for _ in range(2)]
    assert drawn == [(word >> 11) / 2**53 for word in (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4)]


def test_no_list_of_seaquest_overflows_in_the_thickest_traffic() -> None:
    env = MinAtarEnv("seaquest", 64, sticky_action_prob=0.0, difficulty_ramping=False)
    env.reset(range(64))
    env._states[:, seaquest.SPAWN_EVERY] = 1
    living, longest = np.ones(64, bool), np.zeros(5, int)
    lists = [seaquest.FISH, seaquest.SUB, seaquest.BOMB, seaquest.SHOT, seaquest.DIVER]
    for _ in range(300):  # at the surface nothing reaches the player
        assert not env.step(np.zeros(64, int), living)[2].any()
        longest = np.maximum(longest, env._states[:, lists].max(0))
    assert longest[:2].max() > 20
    rooms = [seaquest.ENEMIES, seaquest.ENEMIES, seaquest.BOMBS, seaquest.FEW, seaquest.FEW]
    assert (longest < rooms).all(), longest


# -- the doors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.float32])
def test_observations_come_in_the_dtype_asked_for(dtype) -> None:
    env, reference = MinAtarEnv("breakout", 3, dtype=dtype), MinAtarEnv("breakout", 3)
    for observations, expected in zip(
        (env.reset([1, 2, 3]), env.restart([1])), (reference.reset([1, 2, 3]), reference.restart([1])), strict=True
    ):
        assert observations.dtype == dtype
        np.testing.assert_array_equal(observations.astype(bool), expected)
    actions = np.array([0, 1, 2]), np.ones(3, bool)
    observations = env.step(*actions)[0]
    assert observations.dtype == dtype
    np.testing.assert_array_equal(observations.astype(bool), reference.step(*actions)[0])
    assert env.single_observation_space.dtype == dtype
    assert observations[0] in env.single_observation_space


def test_what_is_returned_is_the_caller_s_to_keep() -> None:
    env = MinAtarEnv("asterix", 2)
    first = env.reset([0, 1])
    kept = first.copy()
    second = env.step(np.array([1, 2]), np.ones(2, bool))[0]
    first[:] = second[:] = True
    third = env.step(np.array([1, 2]), np.zeros(2, bool))[0]
    assert third.sum() < 20
    np.testing.assert_array_equal(env.reset([0, 1]), kept)


@pytest.mark.parametrize("version", [0, 1])
@EVERY_GAME
def test_make_batch_finds_the_games_without_the_package(game: str, version: int, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "minatar", None)
    name = f"MinAtar/{game.title().replace('_', '')}-v{version}"
    env = make_batch(name, 3, max_episode_steps=7, sticky_action_prob=0.5)
    assert (env.name, env.num_envs, env.max_episode_steps) == (name, 3, 7)
    assert env.single_action_space.n == (6 if version == 0 else len(GAMES[game].MINIMAL))
    trajectories = rollout(env, lambda observations, alive: np.zeros(3, np.int64), [0, 1, 2])
    assert isinstance(trajectories, Trajectories)
    assert trajectories.observations.shape[2:] == env.single_observation_space.shape
    assert ((trajectories.lengths == 7) == trajectories.truncated).all()
    assert (trajectories.truncated | trajectories.terminated).all()
    with pytest.raises(InputError, match=r"kwargs.*gravitas"):
        make_batch(name, 3, gravitas=3)


def test_without_numba_plain_python_plays(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    assert not _bind.has_numba()
    env = MinAtarEnv("breakout", 1)
    env.reset([0])
    assert env.step(np.array([1]), np.ones(1, bool))[0].sum() == 3 + 30
    with pytest.raises(MissingExtra, match=r"mindworks\[fast\]"):
        MinAtarEnv("breakout", 1, compiled=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"game": "pong"}, "game.*pong"),
        ({"sticky_action_prob": 1.5}, "sticky_action_prob.*1.5"),
        ({"sticky_action_prob": float("nan")}, "sticky_action_prob.*nan"),
        ({"num_envs": 0}, "num_envs.*0"),
        ({"max_episode_steps": 0}, "max_episode_steps.*0"),
        ({"dtype": np.float64}, "dtype.*float64"),
        ({"dtype": "pixels"}, "dtype.*pixels"),
    ],
)
def test_bad_arguments(arguments, words: str) -> None:
    with pytest.raises(InputError, match=words):
        MinAtarEnv(**{"game": "breakout", "num_envs": 2, **arguments})


def test_bad_calls() -> None:
    env = MinAtarEnv("breakout", 2)
    for call in (env.state, lambda: env.restart([0]), lambda: env.step(np.zeros(2, int), np.ones(2, bool))):
        with pytest.raises(InputError, match="reset"):
            call()
    env.reset([0, 1])
    for rows, words in (
        ([2], "rows.*2"),
        ([-1], "rows.*-1"),
        ([0, 0], "rows.*once"),
        ([0.5], "rows.*float"),
        (1, "rows"),
    ):
        with pytest.raises(InputError, match=words):
            env.restart(rows)
    with pytest.raises(InputError, match=r"rows.*bool"):
        env.restart(np.ones(3, bool))
    with pytest.raises(InputError, match=r"actions.*3"):
        env.step(np.array([0, 3]), np.ones(2, bool))
    state = env.state()
    for change, words in (
        ({"game": state["game"][:1]}, "state: game"),
        ({"streams": state["streams"].astype(np.int64)}, "state: streams.*int64"),
        ({"more": state["open"]}, "state.*more"),
    ):
        with pytest.raises(InputError, match=words):
            env.load({**state, **change})
    with pytest.raises(InputError, match="state: game"):
        MinAtarEnv("asterix", 2).load(state)


@pytest.mark.filterwarnings("error")
@EVERY_GAME
def test_gymnasium_accepts_the_single_game(game: str) -> None:
    check_env(MinAtarGym(game, max_episode_steps=50), skip_render_check=True)


def test_the_single_game_is_a_row() -> None:
    one, rows = MinAtarGym("breakout", max_episode_steps=30), MinAtarEnv("breakout", 8, max_episode_steps=30)
    np.testing.assert_array_equal(one.reset(seed=7)[0], rows.reset(range(8))[7])
    frames, rewards, over = played(rows, 100)
    rng = np.random.default_rng(0)
    for t in range(100):
        observation, reward, terminated, truncated, info = one.step(rng.integers(3, size=8)[7])
        assert (reward, terminated or truncated, info) == (rewards[t, 7], over[t, 7], {})
        if terminated or truncated:
            with pytest.raises(InputError, match="reset"):
                one.step(0)
            observation, _ = one.reset()
        np.testing.assert_array_equal(observation, frames[t, 7])
    saved = one.state()
    other = MinAtarGym("breakout", max_episode_steps=30)
    other.load(saved)
    np.testing.assert_array_equal(other.step(1)[0], one.step(1)[0])
    for action in (3, -1, 0.5):
        with pytest.raises(InputError, match="actions"):
            one.step(action)
