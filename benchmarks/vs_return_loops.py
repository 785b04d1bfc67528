"""Multi-step targets of stored trajectories against plain loops over Python floats, which is how they are explained.

The peer goes backwards through one trajectory after the other, on lists of floats that it does not have to convert;
with a limited lookahead it does so from every step anew. Rewards, values, traces and cuts are random. The
rows of a whole `Target`, from the values of all actions on, set it against the loop alone, for which the same
preparation is done beforehand. The unit is one batch of 256 trajectories of 128 steps, float32. The bar is 20, set in
advance; the rows of a whole `Target` have none.
Run: `python benchmarks/vs_return_loops.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import exp
from typing import Any

import _bench  # before torch: it asks for one thread

import torch  # isort: skip
from torch import Tensor

from mindworks.core import returns
from mindworks.core.targets import Target

Rows = list[list[Any]]
Back = Callable[..., list[float]]
LAM, SHARPNESS, LOOKAHEAD, BAR = 0.9, 10.0, 16, 20
BATCH, STEPS, ACTIONS = 256, 128, 6


def n_step(r: list[float], d: list[float], v: list[float], cut: list[bool]) -> list[float]:
    """Rewards up to the end of the trajectory."""
    out, y = [0.0] * len(r), 0.0
    for t in range(len(r) - 1, -1, -1):
        y = r[t] + d[t] * (v[t] if cut[t] else y)
        out[t] = y
    return out


def peng(r: list[float], d: list[float], v: list[float], cut: list[bool]) -> list[float]:
    """A mixture of the next value and the target of the next step."""
    out, y = [0.0] * len(r), 0.0
    for t in range(len(r) - 1, -1, -1):
        y = r[t] + d[t] * (v[t] if cut[t] else v[t] + LAM * (y - v[t]))
        out[t] = y
    return out


def traced(
    r: list[float], d: list[float], v: list[float], cut: list[bool], taken: list[float], trace: list[float]
) -> list[float]:
    """The next value, and the error behind it as far as the trace lets it."""
    out, y = [0.0] * len(r), 0.0
    for t in range(len(r) - 1, -1, -1):
        y = r[t] + d[t] * (v[t] if cut[t] else v[t] + trace[t] * (y - taken[t]))
        out[t] = y
    return out


def highway(r: list[float], d: list[float], v: list[float], cut: list[bool]) -> list[float]:
    """The larger of the next value and the target of the next step."""
    out, y = [0.0] * len(r), 0.0
    for t in range(len(r) - 1, -1, -1):
        y = r[t] + d[t] * (v[t] if cut[t] or v[t] > y else y)
        out[t] = y
    return out


def highway_soft(r: list[float], d: list[float], v: list[float], cut: list[bool]) -> list[float]:
    """The two of them, weighted by a sigmoid of their difference."""
    out, y = [0.0] * len(r), 0.0
    for t in range(len(r) - 1, -1, -1):
        if cut[t]:
            y = r[t] + d[t] * v[t]
        else:
            gain = y - v[t]
            y = r[t] + d[t] * (v[t] + gain / (1.0 + exp(-SHARPNESS * gain)))
        out[t] = y
    return out


def whole(back: Back, *parts: Rows) -> Rows:
    """Targets up to the ends of the trajectories; the last step of a row is a cut."""
    return [back(*row) for row in zip(*parts, strict=True)]


def windows(back: Back, *parts: Rows) -> Rows:
    """Targets of a limited lookahead: from every step, backwards through the steps in its reach."""
    found = []
    for r, d, v, cut, *more in zip(*parts, strict=True):
        row = []
        for t in range(len(r)):
            end = t + 1
            while not cut[end - 1] and end - t < LOOKAHEAD:
                end += 1
            ends = [False] * (end - t - 1) + [True]
            row.append(back(r[t:end], d[t:end], v[t:end], ends, *(one[t:end] for one in more))[0])
        found.append(row)
    return found


def data() -> dict[str, Tensor]:
    """Random steps; one in a hundred terminates, two more are truncated."""
    g = torch.Generator().manual_seed(0)
    over, cut = (torch.rand(BATCH, STEPS, generator=g) < share for share in (0.01, 0.02))
    cut[:, -1] = True
    return {
        "reward": torch.randn(BATCH, STEPS, generator=g),
        "discount": torch.where(over, 0.0, 0.99),
        "next_q": torch.randn(BATCH, STEPS, ACTIONS, generator=g),
        "next_action": torch.randint(ACTIONS, (BATCH, STEPS), generator=g),
        "next_behavior": 0.1 + 0.9 * torch.rand(BATCH, STEPS, generator=g),
        "cut": over | cut,
    }


def repeat(call: Callable[[], Tensor], times: int) -> None:
    """Call it and drop what it gives, as a learner does."""
    for _ in range(times):
        call()


def timed(case: str, ours: Callable[[], Tensor], peer: Callable[[], Rows], bar: float) -> dict[str, Any]:
    """A row, after a check that both sides give the same numbers; a sample of ours is fifty calls."""
    worst = (ours().double() - torch.tensor(peer(), dtype=torch.float64)).abs().max().item()
    if not worst < 2e-5:
        raise SystemExit(f"the sides differ: {case} by {worst}")
    calls = 50
    ours_s, peer_s = _bench.compare(lambda: repeat(ours, calls), peer)
    return _bench.row(case, ours_s / calls, peer_s, bar, largest_difference=worst)


def main() -> int:
    torch.set_num_threads(1)
    steps = data()
    r, d, cut = steps["reward"], steps["discount"], steps["cut"]
    v = steps["next_q"].amax(-1)
    taken = steps["next_q"].gather(-1, steps["next_action"].unsqueeze(-1)).squeeze(-1)
    trace = LAM * (0.3 / steps["next_behavior"]).clamp_max(1)
    lists = [part.tolist() for part in (r, d, v, cut)]
    traces = [*lists, taken.tolist(), trace.tolist()]
    ours: dict[str, Callable[[int | None], Tensor]] = {
        "n_step": lambda n: returns.n_step(r, d, v, cut, n),
        "peng": lambda n: returns.peng(r, d, v, LAM, cut, n),
        "traced": lambda n: returns.traced(r, d, v, taken, trace, cut, n),
        "highway": lambda n: returns.highway(r, d, v, cut, n),
        "highway_soft": lambda n: returns.highway_soft(r, d, v, SHARPNESS, cut, n),
    }
    loops: dict[str, Back] = {
        "n_step": n_step,
        "peng": peng,
        "traced": traced,
        "highway": highway,
        "highway_soft": highway_soft,
    }
    rows = []
    for name, call in ours.items():
        given, loop = traces if name == "traced" else lists, loops[name]
        rows.append(timed(f"{name}, to the end", lambda: call(None), lambda: whole(loop, *given), BAR))  # noqa: B023
        rows.append(timed(f"{name}, {LOOKAHEAD} steps", lambda: call(LOOKAHEAD), lambda: windows(loop, *given), BAR))  # noqa: B023
    target = Target("highway", lookahead=LOOKAHEAD)
    rows.append(timed("a whole Target, highway", lambda: target(**steps), lambda: windows(highway, *lists), bar=0))
    target = Target("retrace", lookahead=LOOKAHEAD, lam=LAM)
    prepared = [part.tolist() for part in retrace_parts(steps, target)]
    rows.append(timed("a whole Target, retrace", lambda: target(**steps), lambda: windows(traced, *prepared), bar=0))
    return 0 if _bench.write("vs_return_loops", rows) else 1


def retrace_parts(steps: dict[str, Tensor], target: Target) -> list[Tensor]:
    """What the loop needs for retrace: no two actions are equally good here."""
    q, action = steps["next_q"], steps["next_action"].unsqueeze(-1)
    greedy = torch.nn.functional.one_hot(q.argmax(-1), ACTIONS).to(q.dtype)
    pi = target.epsilon / ACTIONS + (1 - target.epsilon) * greedy
    taken, chosen = (part.gather(-1, action).squeeze(-1) for part in (q, pi))
    trace = target.lam * (chosen / steps["next_behavior"]).clamp_max(1)
    return [steps["reward"], steps["discount"], (pi * q).sum(-1), steps["cut"], taken, trace]


if __name__ == "__main__":
    sys.exit(main())
