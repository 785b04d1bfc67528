"""The planners on a GPU: right numbers, time per layer, a short training, and a step at the size of the paper.

Ours is the triton backend of value iteration; the peers are the same layers in eager torch, one layer by
`torch.compile` called again and again, and for training the fused backend on the CPU. Times are those between two CUDA
events, medians after a warm-up, so what a GPU waits for its host counts; the unit is one layer of the whole batch
unless a case says otherwise. Every part is a process of its own, so that one that fails leaves the others alone.
Run: `PYTHONPATH=src python benchmarks/on_gpu.py [--dry] [PART ...]`; `--dry` looks for slips on the CPU.
"""
# ruff: noqa: B023 - every function is called within its turn of the loop

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import _bench  # before torch: it asks for one thread

import torch  # isort: skip
from torch import Tensor

from mindworks.planning import (
    DTVIN,
    GPPN,
    VIN,
    GPPNConfig,
    HighwayVIN,
    Training,
    TrainingConfig,
    _reference,
    _triton,
    generate,
    score,
)
from mindworks.planning.value_iteration import backends, value_iteration

DRY = "--dry" in sys.argv
DEVICE = "cpu" if DRY else "cuda"
OUT = Path(os.environ.get("MINDWORKS_RESULTS", _bench.RESULTS))
LIMITS = {"correct": 80, "works": 80, "times": 60, "paper": 60, "training": 50, "tuning": 75, "compiled": 80}  # seconds
rows: list[dict[str, Any]] = []
facts: dict[str, Any] = {}
part = ""  # the part that this process runs


def say(name: str, value: Any) -> None:
    """Print a fact and keep it."""
    facts[name] = value
    print(f"{name}: {value}", flush=True)
    if part:
        save()


@contextmanager
def guarded(name: str) -> Any:
    """Go on after a failure, with its traceback in the output."""
    try:
        yield
    except Exception as error:
        say(f"FAILED {name}", f"{type(error).__name__}: {str(error)[:300]}")
        traceback.print_exc()


def seconds(call: Callable[[], Any], repeats: int = 5, warmup: int = 2) -> float:
    """Median seconds of one call."""
    taken = []
    for repeat in range(warmup + repeats):
        if DRY:
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
            continue
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        call()
        after.record()
        torch.cuda.synchronize()
        taken.append(before.elapsed_time(after) / 1e3)
        del repeat
    return median(taken[warmup:])


def peak(call: Callable[[], Any]) -> float:
    """GB that one call takes at most, beyond what is there before."""
    if DRY:
        call()
        return 0.0
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e9


def process(
    sizes: tuple[int, ...], form: str = "dynamic", bias: bool = False, dtype: torch.dtype = torch.float32
) -> list[Tensor | None]:
    """Transition, reward, bias or None and initial values, for `sizes` (B, C, A, F, H, W); they ask for gradients."""
    batch, channels, actions, window, height, width = sizes
    source = torch.Generator().manual_seed(0)
    cells = (1, 1) if "static" in form else (height, width)
    shape = (1 if "shared" in form else batch, channels, actions, channels * window**2, *cells)
    made = [torch.randn(shape, generator=source).mul(2).softmax(3)]
    made += [torch.randn(batch, channels, height, width, generator=source) for _ in range(2)]
    made += [torch.randn(batch, channels, actions, height, width, generator=source)] if bias else []
    transition, reward, initial, *rest = (x.to(DEVICE, dtype).requires_grad_() for x in made)
    return [transition, reward, rest[0] if rest else None, initial]


def iterate(name: str, args: list[Tensor | None], keep: tuple[int, ...], **options: Any) -> Tensor:
    """The values by a backend, `triton` or `torch`."""
    transition, reward, bias, initial = args
    assert transition is not None
    assert initial is not None
    options = {"bias": bias, "actions": None, "discount": 1.0, "segment": 0, **options}
    if name == "triton" and not DRY:
        return _triton.iterate(transition, reward, initial, keep, shape=tuple(initial.shape), **options)
    return _reference.iterate(transition, reward, initial, keep, **options)


def with_gradients(name: str, args: list[Tensor | None], keep: tuple[int, ...], **options: Any) -> list[Tensor]:
    """Values and gradients of a fixed random sum of them."""
    out = iterate(name, args, keep, **options)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return [out.detach(), *torch.autograd.grad(out, [x for x in args if x is not None], weights)]


# -- parts -------------------------------------------------------------------------------------------------------------


def correct() -> None:
    """Values and gradients against float64, and the ways to launch against each other."""
    one, graph_from = _triton.ONE_PROGRAM, _triton.GRAPH_FROM
    cases: list[tuple[str, tuple[int, ...], str, bool]] = [
        ("news 15x15", (4, 1, 4, 3, 15, 15), "dynamic", False),
        ("moore 25x25", (3, 1, 8, 3, 25, 25), "dynamic", True),
        ("diffdrive 15x15", (2, 4, 3, 3, 15, 15), "dynamic", False),
        ("wide 12x20", (2, 1, 4, 5, 12, 20), "dynamic", False),
        ("vin 15x15", (4, 1, 10, 3, 15, 15), "static shared", True),
        ("observation 9x9", (3, 2, 3, 3, 9, 9), "static", False),
        ("state 35x35", (4, 1, 4, 3, 35, 35), "dynamic shared", False),
        ("one cell", (2, 1, 2, 1, 1, 1), "dynamic", False),
        ("large 60x50", (2, 1, 4, 3, 60, 50), "dynamic", False),
        ("large diffdrive 40x40", (2, 4, 3, 3, 40, 40), "dynamic", True),
    ]
    kinds = [
        ("one program", 4096, graph_from, 0, False),
        ("launches", 0, 10**9, 0, True),
        ("graphs", 0, 1, 0, False),
        ("graphs, segments", 0, 1, 7, True),
        ("one program, segments", 4096, 1, 5, True),
    ]
    for number, (name, sizes, form, bias) in enumerate(cases[: 2 if DRY else None]):
        chosen = kinds if number == 0 else [kinds[number % 2 * 4], kinds[1 + number % 3]]  # compilation takes time
        for kind, limit, graphs, segment, forced in chosen:
            if limit and sizes[1] * sizes[4] * sizes[5] > limit:
                continue
            with guarded(f"{name}, {kind}"):
                _triton.ONE_PROGRAM, _triton.GRAPH_FROM = limit, graphs
                layers, source = 18, torch.Generator().manual_seed(2)
                shape = (layers, *sizes[:2], *sizes[4:])
                actions = torch.randint(-1, sizes[2], shape, generator=source).to(DEVICE, torch.int8)
                options = {"discount": 0.95, "segment": segment, "actions": actions if forced else None}
                keep = (3, 7, layers)
                got = with_gradients("triton", process(sizes, form, bias), keep, **options)
                again = with_gradients("triton", process(sizes, form, bias), keep, **options)
                exact = with_gradients("torch", process(sizes, form, bias, torch.float64), keep, **options)
                plain = with_gradients("torch", process(sizes, form, bias), keep, **options)
                # a tie that rounding decides moves a gradient: the norm shows little of it, the maximum all
                errors = [
                    [float((x.double() - y).norm() / y.norm().clamp_min(1e-30)) for x, y in zip(g, exact, strict=True)]
                    for g in (got, plain)
                ]
                same = all(torch.equal(x, y) for x, y in zip(got, again, strict=True))
                verdict = "ok" if max(errors[0]) < 1e-4 and same else "WRONG"
                text = f"{verdict}, relative errors {max(errors[0]):.1e}, of eager torch {max(errors[1]):.1e}"
                say(f"correct: {name}, {kind}", text + ("" if same else ", NOT THE SAME TWICE"))
    _triton.ONE_PROGRAM, _triton.GRAPH_FROM = one, graph_from
    if "triton" in backends():
        with guarded("through value_iteration"):
            args = process((4, 1, 4, 3, 15, 15))
            calls = [value_iteration(args[0], args[1], 30, backend=name) for name in ("triton", "torch", "auto")]
            say("value_iteration, triton against torch", float((calls[0] - calls[1]).detach().abs().max()))
            say("auto is triton", torch.equal(calls[0], calls[2]))


SHAPES = [((32, 15, 15), 60), ((32, 25, 25), 60), ((32, 35, 35), 100), ((8, 100, 100), 400)]


def times() -> None:
    """Time per layer, and 5,000 layers."""
    for (batch, height, width), layers in [((2, 6, 6), 4)] if DRY else SHAPES:
        args, keep = process((batch, 1, 4, 3, height, width)), (layers,)
        case = f"B{batch} {height}x{width}"
        with guarded(case), torch.no_grad():
            pair = [seconds(lambda name=name: iterate(name, args, keep)) for name in ("triton", "torch")]
            rows.append(_bench.row(f"forward, {case}, {layers} layers", *pair, 0, per=layers, peer="eager torch"))
        with guarded(case):
            pair = [seconds(lambda name=name: with_gradients(name, args, keep), 3) for name in ("triton", "torch")]
            text = f"with gradients, {case}, {layers} layers"
            rows.append(_bench.row(text, *pair, 0, per=layers, peer="eager torch"))
        print(*rows[-2:], sep="\n", flush=True)
    layers, sizes = (5, (2, 1, 4, 3, 9, 9)) if DRY else (5000, (8, 1, 4, 3, 100, 100))
    args = process(sizes)
    with guarded("deep forward"), torch.no_grad():
        say(f"forward, B8 100x100, {layers} layers: seconds", seconds(lambda: iterate("triton", args, (layers,)), 3, 1))
    taken: dict[Any, float] = {}
    for name, segment in (("triton", None), ("triton", 0), ("torch", None)):
        with guarded(f"deep {name} {segment}"):

            def call(name: str = name, segment: int | None = segment) -> Any:
                return with_gradients(name, args, (layers,), segment=segment, discount=0.99)

            gigabytes = peak(lambda: taken.update({(name, segment): seconds(call, 1, 0)}))
            if name == "triton":  # the first has compiled
                taken[name, segment] = seconds(call, 3, 0)
            what = f"{name}, B8 100x100, {layers} layers with gradients, segment {segment}"
            say(what, f"{taken[name, segment]:.4f} s, peak {gigabytes:.2f} GB")
    if ("torch", None) in taken and ("triton", None) in taken:
        pair = [taken["triton", None], taken["torch", None]]
        case = f"with gradients, B8 100x100, {layers} layers in segments"
        rows.append(_bench.row(case, *pair, 0, per=layers, peer="eager torch"))


def tuning() -> None:
    """What the constants of the backend do, microseconds per layer: forward, and with gradients."""
    settings: list[tuple[str, dict[str, int]]] = [
        ("as it is", {}),
        ("one program", {"ONE_PROGRAM": 4096}),
        ("one program, no registers", {"ONE_PROGRAM": 4096, "REGISTERS": 0}),
        ("one program, 8 warps", {"ONE_PROGRAM": 4096, "WARPS": 8}),
        ("one program, 32 warps", {"ONE_PROGRAM": 4096, "WARPS": 32}),
        ("blocks of 128, launches", {"ONE_PROGRAM": 0, "GRAPH_FROM": 10**9}),
        ("blocks of 128, graphs", {"ONE_PROGRAM": 0, "GRAPH_FROM": 1}),
        ("blocks of 64, graphs", {"ONE_PROGRAM": 0, "GRAPH_FROM": 1, "BLOCK": 64}),
        ("blocks of 256, graphs", {"ONE_PROGRAM": 0, "GRAPH_FROM": 1, "BLOCK": 256}),
        ("blocks of 128, graphs of 32", {"ONE_PROGRAM": 0, "GRAPH_FROM": 1, "GRAPH": 32}),
        ("blocks of 128, graphs of 128", {"ONE_PROGRAM": 0, "GRAPH_FROM": 1, "GRAPH": 128}),
    ]
    names = ("ONE_PROGRAM", "REGISTERS", "WARPS", "GRAPH", "GRAPH_FROM", "BLOCK")
    usual = {name: getattr(_triton, name) for name in names}
    layers = 4 if DRY else 300
    shapes = [(32, 1, 15, 15), (8, 1, 100, 100), (32, 1, 25, 25), (32, 1, 35, 35), (32, 4, 15, 15)]
    for batch, channels, height, width in [(2, 1, 5, 5)] if DRY else shapes:
        args = process((batch, channels, 4 if channels == 1 else 3, 3, height, width))
        for name, setting in settings:
            unused = "BLOCK" if channels * height * width <= 4096 else "ONE_PROGRAM"
            if setting.get(unused):
                continue
            for key, value in {**usual, **setting}.items():
                setattr(_triton, key, value)
            with guarded(f"{height}x{width} {name}"):
                with torch.no_grad():
                    forward = seconds(lambda args=args: iterate("triton", args, (layers,)), 3, 1)
                both = seconds(lambda args=args: with_gradients("triton", args, (layers,)), 3, 1)
                text = f"{forward / layers * 1e6:.2f} us, with gradients {both / layers * 1e6:.2f} us"
                say(f"tuning B{batch} C{channels} {height}x{width}, {name}", text)


def works() -> None:
    """Every planner on the GPU: training steps, early stopping, exploration."""
    mazes = generate(40, 9, seed=0)
    source = torch.Generator().manual_seed(0)
    planners: dict[str, Callable[[], Any]] = {
        "DTVIN": lambda: DTVIN("news", 20, generator=source),
        "VIN": lambda: VIN("news", 20, generator=source),
        "HighwayVIN": lambda: HighwayVIN("news", 20, block=10, generator=source),
        "GPPN": lambda: GPPN("news", 6, GPPNConfig(hidden=16, window=5), generator=source),
    }
    for name, make in planners.items():
        with guarded(f"works: {name}"):
            planner = make().to(DEVICE)
            training = Training(planner, mazes, TrainingConfig(iterations=3, batch=16), validation=mazes[:8], seed=0)
            losses = []
            while not training.done:
                training.advance()
                losses.append(round(training.latest["loss"], 4))
            planner = training.finish()
            plan = planner.plan(mazes.free[0], mazes.goal[0].tolist())
            explorer = torch.Generator(DEVICE).manual_seed(0)
            planner.train()
            logits = planner.logits(mazes[:2].inputs().to(DEVICE), generator=explorer)
            finite = bool(logits.isfinite().all())
            text = f"losses {losses}, plan of {plan.layers} layers on {plan.actions.device}, finite {finite}"
            say(f"works: {name}", text)
    with guarded("works: checkpoint"):
        first, second = (DTVIN("news", 10, generator=torch.Generator().manual_seed(0)).to(DEVICE) for _ in range(2))
        config = TrainingConfig(iterations=4, batch=16)
        one, two = Training(first, mazes, config, seed=0), Training(second, mazes, config, seed=0)
        one.advance()
        two.load(one.state())
        one.advance()
        two.advance()
        say("works: goes on with the same numbers", torch.equal(one.flat, two.flat))


def training() -> None:
    """A short training on 15 x 15 mazes, and its steps against those of the fused backend on the CPU."""
    size, iterations, depth, count = (7, 3, 8, 40) if DRY else (15, 300, 60, 3000)
    mazes, test = generate(count, size, seed=0), generate(max(8, count // 10), size, seed=1)
    mazes.optimal  # noqa: B018 - computed once, before the clock runs
    say("backends", backends())
    taken = {}
    for device, steps in ((DEVICE, iterations), ("cpu", min(iterations, 40))):
        with guarded(f"training on {device}"):
            planner = DTVIN("news", depth, generator=torch.Generator().manual_seed(0)).to(device)
            job = Training(planner, mazes, TrainingConfig(iterations=iterations, validate_every=10**6), seed=0)
            for _ in range(1 if DRY else 5):
                job.advance()
            first, start = job.step, time.perf_counter()
            while job.step < steps:
                job.advance()
            taken[device] = (time.perf_counter() - start) / max(1, steps - first)
            say(f"training on {device}: steps per second", round(1 / taken[device], 2))
            if job.done:
                rate = score(job.finish(), test).success_rate
                say(f"training on {device}: success after {steps} steps", round(rate, 4))
    if len(taken) == 2:
        case = f"training step, DT-VIN, B32 {size}x{size}, depth {depth}"
        rows.append(_bench.row(case, taken[DEVICE], taken["cpu"], 0, peer="fused on one core", unit="step"))


def paper() -> None:
    """One training step at the size of the paper."""
    size, depth, batch = (9, 12, 2) if DRY else (100, 5000, 8)
    mazes = generate(2 * batch, size, seed=0)
    planner = DTVIN("news", depth, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    job = Training(planner, mazes, TrainingConfig(iterations=10, batch=batch, validate_every=10**6), seed=0)
    gigabytes = peak(job.advance)
    say("paper step: the first, peak GB", round(gigabytes, 2))
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        job.advance()  # it ends with a number on the host
        taken.append(time.perf_counter() - start)
    say(f"paper step, B{batch} {size}x{size}, depth {depth}: seconds", round(median(taken), 3))
    say("paper step: loss and norm of the gradient", [job.latest["loss"], job.latest["gradient"]])
    with torch.no_grad():
        inputs = mazes[:1].inputs().to(DEVICE)
        say("paper plan, one map: seconds", round(seconds(lambda: planner(inputs), 3, 1), 4))


def compiled() -> None:
    """One layer by `torch.compile`, called for every layer."""
    for (batch, height, width), layers in [((2, 6, 6), 4)] if DRY else [SHAPES[0], SHAPES[3]]:
        args, case = process((batch, 1, 4, 3, height, width)), f"B{batch} {height}x{width}, {layers} layers"
        transition, reward, _, initial = args
        kernels = transition.unbind(3)

        def layer(values: Tensor, reward: Tensor, *kernels: Tensor) -> Tensor:
            taps = _reference._shifts(reward + values, 3)
            return sum(kernel * tap for kernel, tap in zip(kernels, taps, strict=True)).amax(2)

        step = layer if DRY else torch.compile(layer, dynamic=False)

        def run(step: Any = step, layers: int = layers, values: Any = initial, reward: Any = reward) -> Tensor:
            for _ in range(layers):
                values = step(values, reward, *kernels)
            return values

        for kind in ("forward", "with gradients"):
            with guarded(f"compiled {kind} {case}"), torch.set_grad_enabled(kind == "with gradients"):
                start = time.perf_counter()
                kernels = transition.unbind(3)
                keep = (layers,)
                if kind == "forward":
                    pair = [seconds(lambda: iterate("triton", args, keep)), seconds(run)]
                else:
                    wanted = [transition, reward, initial]

                    def backward(run: Any = run, wanted: Any = wanted) -> Any:
                        return torch.autograd.grad(run().sum(), wanted, retain_graph=True)

                    pair = [seconds(lambda: with_gradients("triton", args, keep), 3), seconds(backward, 3)]
                rows.append(_bench.row(f"{kind}, {case}, compiled", *pair, 0, per=layers, peer="torch.compile"))
                say(f"compiled {kind} {case}: seconds with compilation", round(time.perf_counter() - start, 1))


# -- running -----------------------------------------------------------------------------------------------------------


def environment() -> dict[str, Any]:
    """That of all benchmarks, with the GPU."""
    found = _bench.environment()
    if not DRY:
        found["cpu"] = f"{torch.cuda.get_device_name()}, host {found['cpu']}"
    return found


def save() -> None:
    """Write what this part has found so far to a file of its own."""
    text = json.dumps({"rows": rows, "facts": facts, "environment": environment()})
    (OUT / f"on_gpu_{part}.json").write_text(text)


def run_part(name: str) -> None:
    """One part in this process."""
    global part
    part, start = name, time.perf_counter()
    with guarded(name):
        globals()[name]()
    say(f"seconds of {name}", round(time.perf_counter() - start, 1))


def start_part(name: str) -> subprocess.Popen[bytes]:
    """The part in a process of its own."""
    (OUT / f"on_gpu_{name}.json").unlink(missing_ok=True)
    words = [sys.executable, "-u", __file__, name, "--alone", *(["--dry"] if DRY else [])]
    return subprocess.Popen(words)


def collect(name: str, started: subprocess.Popen[bytes], record: dict[str, Any]) -> None:
    """Wait for a part and add what it found to the record."""
    print(f"== waiting for {name}", flush=True)
    try:
        started.wait(LIMITS[name])
    except subprocess.TimeoutExpired:
        started.kill()
        record["facts"][f"FAILED {name}"] = f"not done after {LIMITS[name]} seconds"
    path = OUT / f"on_gpu_{name}.json"
    if not path.exists():
        record["facts"].setdefault(f"FAILED {name}", "it ended without a result")
        return
    part = json.loads(path.read_text())
    path.unlink()
    record["rows"] += part["rows"]
    record["facts"] |= part["facts"]
    record["environment"] = part["environment"]


def main() -> int:
    """All parts, each in a process of its own, and one record of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=list(LIMITS), help=", ".join(LIMITS))
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--alone", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(LIMITS):
        parser.error(f"unknown parts {sorted(unknown)}")
    if not (options.dry or torch.cuda.is_available()):
        parser.error("it needs a GPU with CUDA, and triton; --dry runs tiny sizes on the CPU")
    OUT.mkdir(parents=True, exist_ok=True)
    if options.alone:
        run_part(options.parts[0])
        return 0
    record: dict[str, Any] = {"benchmark": "on_gpu", "rows": [], "environment": _bench.environment(), "facts": {}}
    untimed = [name for name in options.parts if name in ("correct", "works")]
    timed = [[name] for name in options.parts if name not in untimed]
    for group in [untimed, *timed]:
        for name, started in [(name, start_part(name)) for name in group]:
            collect(name, started, record)
            if not DRY:
                (OUT / "on_gpu.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for row in record["rows"]:
        numbers = f"ours {row['ours_us']:12.2f} us  {row['peer']} {row['peer_us']:12.2f} us  x {row['ratio']}"
        print(f"{row['case']:60} {numbers}")
    failed = [key for key in record["facts"] if key.startswith("FAILED")]
    wrong = [key for key, value in record["facts"].items() if "WRONG" in str(value)]
    print(f"failed: {failed}\nwrong: {wrong}", flush=True)
    return int(bool(failed or wrong))


if __name__ == "__main__":
    sys.exit(main())
