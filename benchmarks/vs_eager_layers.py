"""Value iteration as one fused operator against the layers written out in PyTorch, forward and backward.

The peers run one layer after the other under autograd: (a) the cheapest eager form, the faster of `unfold`, multiply,
sum and of nine shifted slices whose kernels are unbound once, chosen for each size by timing both; (b) `unfold` and
`torch.einsum`. All kernels differ from cell to cell, the loss is on the last of 60 layers, as many as planners of the
study have, and the unit is one layer for the whole batch. With 30 layers more of the time goes into packing: the ratio
to einsum was 21 to 26 at 15 x 15 (2026-11-27). Two more rows hold 100 x 100 maps of 5,000 layers to 3 CPU seconds and
100 MB, and show one kernel for all cells beside `conv2d` and a maximum. Run: `python benchmarks/vs_eager_layers.py`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import _bench  # before torch: it asks for one thread

import torch  # isort: skip
from torch import Tensor

from mindworks.planning.value_iteration import value_iteration, window

ACTIONS, SIZE, LAYERS, CALLS = 4, 3, 60, 6
DEEP_LAYERS, DEEP_SECONDS, DEEP_MEGABYTES, SEGMENT = 5000, 3.0, 100, 70

Planner = Callable[[Tensor, Tensor], Tensor]


def fused(transition: Tensor, reward: Tensor) -> Tensor:
    """Our side."""
    return value_iteration(transition, reward, LAYERS, backend="fused")[0]


def shifted_slices(transition: Tensor, reward: Tensor) -> Tensor:
    """Products with shifted slices: the reference of this library, with all layers held."""
    return value_iteration(transition, reward, LAYERS, backend="torch", segment=0)[0]


def unfold_sum(transition: Tensor, reward: Tensor) -> Tensor:
    """`unfold`, multiply, sum."""
    values = torch.zeros_like(reward)
    for _ in range(LAYERS):
        values = (transition * window(reward + values, SIZE)[:, None, None]).sum(3).max(2)[0]
    return values


def unfold_einsum(transition: Tensor, reward: Tensor) -> Tensor:
    """`unfold` and `torch.einsum`."""
    values = torch.zeros_like(reward)
    for _ in range(LAYERS):
        values = torch.einsum("bcakij,bkij->bcaij", transition, window(reward + values, SIZE)).max(2)[0]
    return values


def convolution(transition: Tensor, reward: Tensor) -> Tensor:
    """`conv2d` and a maximum, for one kernel of all cells."""
    kernel = transition.reshape(-1, 1, SIZE, SIZE)
    values = torch.zeros_like(reward)
    for _ in range(LAYERS):
        values = torch.nn.functional.conv2d(reward + values, kernel, padding=SIZE // 2).max(1, keepdim=True)[0]
    return values


def problem(batch: int, side: int, actions: int = ACTIONS, shared: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """A transition, a reward, and the gradient of the last values."""
    generator = torch.Generator().manual_seed(0)
    cells = (1, 1) if shared else (side, side)
    logits = torch.randn(1 if shared else batch, 1, actions, SIZE**2, *cells, generator=generator)
    reward, gradient = (torch.randn(batch, 1, side, side, generator=generator) for _ in range(2))
    return logits.softmax(3).requires_grad_(), reward.requires_grad_(), gradient


def both_ways(planner: Planner, transition: Tensor, reward: Tensor, gradient: Tensor) -> list[Tensor]:
    """The values and the gradients."""
    values = planner(transition, reward)
    return [values.detach(), *torch.autograd.grad(values, (transition, reward), gradient)]


def same(peer: Planner, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    """Stop unless both sides agree.

    Where two actions are within a rounding of each other, the sides may choose differently, and the gradients of a few
    cells differ: fewer than 1 in 1,000 may.
    """
    pairs = list(zip(both_ways(fused, *inputs), both_ways(peer, *inputs), strict=True))
    for name, (x, y) in zip(("values", "transition", "reward"), pairs, strict=True):
        apart = (x - y).abs() > 1e-4 * y.abs().max()
        if apart.float().mean() > (0 if name == "values" else 1e-3):
            raise SystemExit(f"the sides differ: {int(apart.sum())} of {name} by {peer.__name__}")


def timed(ours: Planner, peer: Planner, inputs: tuple[Tensor, Tensor, Tensor], repeats: int) -> tuple[float, float]:
    """CPU seconds of `CALLS` calls of either side, as in training: calls of one kind follow each other."""
    return _bench.compare(
        lambda: [both_ways(ours, *inputs) for _ in range(CALLS)],
        lambda: [both_ways(peer, *inputs) for _ in range(CALLS)],
        repeats=repeats,
    )


def dynamic_rows(batch: int, side: int) -> list[Any]:
    """A kernel for every cell: the fused operator against both peers."""
    inputs = problem(batch, side)
    for peer in (unfold_sum, shifted_slices, unfold_einsum):
        same(peer, inputs)
    slices, unfold = timed(shifted_slices, unfold_sum, inputs, repeats=1)
    best = shifted_slices if slices < unfold else unfold_sum
    case = f"{side}x{side}, {batch} maps"
    per = LAYERS * CALLS
    rows = []
    for peer, bar in ((best, 6), (unfold_einsum, 24)):
        taken = timed(fused, peer, inputs, repeats=5)
        rows.append(_bench.row(f"{case}, {peer.__name__}", *taken, bar, per=per, peer=peer.__name__))
    return rows


def static_row(batch: int, side: int, actions: int) -> Any:
    """One kernel for all cells."""
    inputs = problem(batch, side, actions, shared=True)
    same(convolution, inputs)
    taken = timed(fused, convolution, inputs, repeats=5)
    case = f"{side}x{side}, {batch} maps, one kernel of {actions} actions, conv2d"
    return _bench.row(case, *taken, 0, per=LAYERS * CALLS, peer="convolution")


def deep(layers: int = DEEP_LAYERS) -> None:
    """Forward and backward through one map of 100 x 100 in segments."""
    transition, reward, gradient = problem(1, 100)
    value_iteration(transition, reward, layers, segment=SEGMENT, backend="fused")[0].backward(gradient)


def deep_rows() -> list[Any]:
    """5,000 layers: the seconds in this process, the memory in another one."""
    taken, _ = _bench.compare(deep, lambda: None, repeats=5)
    case = f"100x100, 1 map, {DEEP_LAYERS} layers, bar of {DEEP_SECONDS:.0f} s"
    done = subprocess.run([sys.executable, __file__, "memory"], capture_output=True, text=True, check=True)
    megabytes = float(done.stdout)
    row = _bench.row(case, taken, DEEP_SECONDS, 1, peer="bar of 3 s", segment=SEGMENT, memory_mb=round(megabytes, 1))
    row["memory_bar_mb"] = DEEP_MEGABYTES
    row["passed"] = row["passed"] and megabytes < DEEP_MEGABYTES
    return [row]


def memory() -> None:
    """Print the peak of the deep run in MB beyond a process that has run some layers and holds the inputs."""
    import resource

    deep(2 * SEGMENT)
    kilobytes = 1024 if sys.platform == "linux" else 1024**2
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = "/proc/self/status"

    def now(name: str) -> int:
        with open(status, encoding="utf-8") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith(name))

    try:  # the peak of the imports is above that of the run: forget it where that can be done
        with open("/proc/self/clear_refs", "w", encoding="utf-8") as peak:
            peak.write("5")
        before = now("VmRSS")
        deep()
        print((now("VmHWM") - before) / 1024)
    except OSError:
        deep()
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / kilobytes)


def main() -> int:
    torch.set_num_threads(1)
    if sys.argv[1:] == ["memory"]:
        memory()
        return 0
    rows = [row for batch, side in ((32, 15), (32, 25), (32, 35), (4, 100)) for row in dynamic_rows(batch, side)]
    rows += deep_rows()
    rows += [static_row(32, 25, 10)]
    return 0 if _bench.write("vs_eager_layers", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
