"""Targets by name: policies and traces from their definitions, by hand and in plain loops; refusals."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from mindworks.core import returns
from mindworks.core.targets import Kind, Target
from mindworks.errors import InputError

KINDS = get_args(Kind)
TRACED = ("retrace", "tree_backup", "watkins")


def stored(rows: int = 6, count: int = 12, actions: int = 3, seed: int = 0, ties: bool = True) -> dict[str, Tensor]:
    """Steps with ends of every sort; with `ties` Q is rounded so that some actions are equally good."""
    g = torch.Generator().manual_seed(seed)
    q = 2 * torch.randn(rows, count, actions, generator=g, dtype=torch.float64)
    over = torch.rand(rows, count, generator=g) < 0.08
    return {
        "reward": torch.randn(rows, count, generator=g, dtype=torch.float64),
        "discount": torch.where(over, 0.0, 0.9).double(),
        "next_q": q.round() if ties else q,
        "next_action": torch.randint(actions, (rows, count), generator=g),
        "next_behavior": 0.05 + 0.95 * torch.rand(rows, count, generator=g, dtype=torch.float64),
        "cut": over | (torch.rand(rows, count, generator=g) < 0.08),
    }


def policy(q: list[float], epsilon: float) -> list[float]:
    """Epsilon-greedy with ties shared."""
    best = [value == max(q) for value in q]
    return [epsilon / len(q) + (1 - epsilon) * is_best / sum(best) for is_best in best]


def by_loop(target: Target, row: dict[str, list[Any]], t: int, left: int) -> float:
    """The target of step t of one row with `left` steps to look ahead, by its recursion in plain floats."""
    q, action, d = row["next_q"][t], row["next_action"][t], row["discount"][t]
    pi = policy(q, target.epsilon)
    expected = target.kind in ("retrace", "tree_backup")
    value = sum(p * one for p, one in zip(pi, q, strict=True)) if expected else max(q)
    if target.kind == "one_step" or left == 1 or row["cut"][t] or t == len(row["cut"]) - 1:
        return row["reward"][t] + d * value
    ahead = by_loop(target, row, t + 1, left - 1)
    trace = {
        "retrace": target.lam * min(1.0, pi[action] / row["next_behavior"][t]),
        "tree_backup": target.lam * pi[action],
        "watkins": target.lam * (q[action] == max(q)),
    }
    if target.kind in trace:
        inner = value + trace[target.kind] * (ahead - q[action])
    elif target.kind == "highway_soft":
        inner = value + (ahead - value) / (1 + math.exp(-target.sharpness * (ahead - value)))
    else:
        mixed = (1 - target.lam) * value + target.lam * ahead
        inner = {"n_step": ahead, "peng": mixed, "highway": max(value, ahead)}[target.kind]
    return row["reward"][t] + d * inner


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lookahead", [1, 3, 30])
@pytest.mark.parametrize("ties", [True, False])
def test_every_kind_is_its_recursion(kind: Kind, lookahead: int, ties: bool) -> None:
    steps = stored(ties=ties)
    target = Target(kind, lookahead=lookahead, lam=0.8, sharpness=1.5, epsilon=0.3)
    found = target(**steps)
    for i in range(len(found)):
        row = {name: part[i].tolist() for name, part in steps.items()}
        wanted = [by_loop(target, row, t, lookahead) for t in range(found.shape[-1])]
        torch.testing.assert_close(found[i].tolist(), wanted, rtol=1e-10, atol=1e-10)


def test_retrace_by_hand() -> None:
    # pi = (0.8, 0.2), the value 0.8 * 10 + 0.2 * 5 = 9, the trace 0.5 * 0.2 / 0.4 = 0.25, y_1 = 3 + 0.5 * 2 = 4
    found = Target("retrace", lam=0.5, epsilon=0.4)(
        reward=torch.tensor([1.0, 3.0]),
        discount=torch.tensor([0.5, 0.5]),
        next_q=torch.tensor([[10.0, 5.0], [2.0, 2.0]]),
        next_action=torch.tensor([1, 0]),
        next_behavior=torch.tensor([0.4, 1.0]),
    )
    torch.testing.assert_close(found, torch.tensor([1 + 0.5 * (9 + 0.25 * (4 - 5)), 4.0]))


def test_tree_backup_and_watkins_by_hand() -> None:
    steps = {
        "reward": torch.tensor([1.0, 3.0]),
        "discount": torch.tensor([0.5, 0.5]),
        "next_q": torch.tensor([[10.0, 5.0], [2.0, 2.0]]),
        "next_action": torch.tensor([1, 0]),
    }
    found = Target("tree_backup", lam=0.5, epsilon=0.4)(**steps)
    torch.testing.assert_close(found, torch.tensor([1 + 0.5 * (9 + 0.1 * (4 - 5)), 4.0]))
    torch.testing.assert_close(Target("watkins", lam=0.5)(**steps), torch.tensor([6.0, 4.0]))
    steps["next_action"] = torch.tensor([0, 0])
    torch.testing.assert_close(
        Target("watkins", lam=0.5)(**steps), torch.tensor([1 + 0.5 * (10 + 0.5 * (4 - 10)), 4.0])
    )


def test_retrace_on_its_own_policy_sums_expected_errors() -> None:
    """With pi = mu and lam 1 the trace is full: y_t = r_t + d_t (v_t + y_{t+1} - q_t)."""
    steps = stored()
    q, action = steps["next_q"], steps["next_action"].unsqueeze(-1)
    pi = torch.tensor([[policy(one, 0.3) for one in row] for row in q.tolist()], dtype=torch.float64)
    steps["next_behavior"] = pi.gather(-1, action).squeeze(-1)
    value, taken = (pi * q).sum(-1), q.gather(-1, action).squeeze(-1)
    wanted = returns.traced(
        steps["reward"], steps["discount"], value, taken, torch.ones_like(value), steps["cut"], lookahead=5
    )
    torch.testing.assert_close(Target("retrace", lookahead=5, lam=1.0, epsilon=0.3)(**steps), wanted)


@pytest.mark.parametrize("kind", ["retrace", "tree_backup"])
def test_without_exploration_and_ties_a_trace_is_that_of_watkins(kind: Kind) -> None:
    steps = stored(ties=False)
    found = Target(kind, lam=0.7, epsilon=0.0)(**steps)
    torch.testing.assert_close(found, Target("watkins", lam=0.7)(**steps))
    assert not torch.allclose(found, Target(kind, lam=0.7, epsilon=0.1)(**steps))


def test_kinds_are_the_returns_of_their_names() -> None:
    steps = stored()
    r, d, v, cut = steps["reward"], steps["discount"], steps["next_q"].amax(-1), steps["cut"]
    wanted = {
        "one_step": returns.one_step(r, d, v),
        "n_step": returns.n_step(r, d, v, cut, 4),
        "peng": returns.peng(r, d, v, 0.6, cut, 4),
        "highway": returns.highway(r, d, v, cut, 4),
        "highway_soft": returns.highway_soft(r, d, v, 2.0, cut, 4),
    }
    for kind, y in wanted.items():
        assert torch.equal(Target(kind, lookahead=4, lam=0.6, sharpness=2.0)(**steps), y)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_rows_without_behavior_where_none_is_needed(kind: Kind) -> None:
    steps = stored()
    if kind != "retrace":
        del steps["next_behavior"]
    found = Target(kind, lookahead=5)(**steps)
    single = [Target(kind, lookahead=5)(**{name: part[i] for name, part in steps.items()}) for i in range(len(found))]
    torch.testing.assert_close(found, torch.stack(single), rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_at_and_after_a_cut_is_not_read(kind: Kind) -> None:
    steps = stored(rows=1, count=6)
    steps["discount"][:], steps["cut"][:] = 0.9, False
    steps["cut"][0, 2] = True
    wanted = Target(kind)(**{name: part[:, :3] for name, part in steps.items()})
    steps["next_action"][0, [2, 5]] = -7
    steps["next_behavior"][0, [2, 5]] = 0.0
    for name in ("reward", "discount", "next_q", "next_behavior"):
        steps[name][0, 3:] = math.nan
    torch.testing.assert_close(Target(kind)(**steps)[:, :3], wanted)


def test_a_sequence_holds_the_steps_of_its_first_target() -> None:
    assert [Target(kind, lookahead=7).steps for kind in KINDS] == [1] + [7] * (len(KINDS) - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_beyond_those_do_not_matter(kind: Kind) -> None:
    target, steps = Target(kind, lookahead=4), stored(ties=False)
    steps["discount"][:], steps["cut"][:] = 0.9, False
    short = target(**{name: part[:, : target.steps] for name, part in steps.items()})
    torch.testing.assert_close(target(**steps)[:, 0], short[:, 0])


BAD_SETTINGS = [
    ("kind must be one of", {"kind": "sarsa"}),
    ("lookahead must be at least 1, got 0", {"lookahead": 0}),
    ("lam must be in [0, 1], got 1.5", {"lam": 1.5}),
    ("sharpness must be at least 0, got -1.0", {"sharpness": -1.0}),
    ("epsilon must be in [0, 1], got 2.0", {"epsilon": 2.0}),
]


@pytest.mark.parametrize(("message", "settings"), BAD_SETTINGS, ids=[message for message, _ in BAD_SETTINGS])
def test_bad_settings_are_refused_in_one_line(message: str, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        Target(**settings)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


SHAPE = torch.full((6, 12), 0.5, dtype=torch.float64)
BAD = [
    ("next_behavior must be given for retrace, got None", {"next_behavior": None}),
    ("next_behavior must be in (0, 1], got 0.0", {"next_behavior": 0 * SHAPE}),
    ("next_behavior must be in (0, 1], got 1.5", {"next_behavior": 3 * SHAPE}),
    ("next_behavior must have the shape of reward (6, 12), got (12,)", {"next_behavior": SHAPE[0]}),
    ("next_behavior must be torch.float64, got torch.float32", {"next_behavior": SHAPE.float()}),
    ("next_action must be torch.int64, got torch.int32", {"next_action": torch.zeros(6, 12, dtype=torch.int32)}),
    ("next_action must be one of 3 actions from 0 on, got 3", {"next_action": torch.full((6, 12), 3)}),
    ("next_action must be one of 3 actions from 0 on, got -1", {"next_action": torch.full((6, 12), -1)}),
    ("next_action must have the shape of reward (6, 12), got (6, 12, 1)", {"next_action": torch.ones(6, 12, 1).long()}),
    ("next_q must be reward's (6, 12) with actions behind, got (6, 12)", {"next_q": SHAPE}),
    ("next_q must be torch.float64 as reward is, got torch.float32", {"next_q": torch.zeros(6, 12, 3)}),
    ("cut must be torch.bool, got torch.float64", {"cut": SHAPE}),
    ("cut must have the shape of reward (6, 12), got (12,)", {"cut": SHAPE[0] > 1}),
    ("discount must be in [0, 1], got 1.5", {"discount": 3 * SHAPE}),
]


@pytest.mark.parametrize(("message", "changed"), BAD, ids=[message for message, _ in BAD])
def test_bad_steps_are_refused_in_one_line(message: str, changed: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        Target("retrace")(**{**stored(), **changed})
    assert str(caught.value) == message
