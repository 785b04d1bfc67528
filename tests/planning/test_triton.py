"""The kernels of triton against the reference, in triton's interpreter on the CPU; skipped without triton.

The interpreter knows nothing of registers, threads and barriers: `benchmarks/on_gpu.py` compares the two on a GPU.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from mindworks.planning import _reference, _triton

triton = pytest.importorskip("triton")

FORMS = ["dynamic", "dynamic shared", "static", "static shared"]
NAMES = ("transition", "reward", "initial", "bias")


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that run on the CPU; the next user of the module gets it anew."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:  # numpy 2.4 makes no number of an array of one, as triton 3.6 asks
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)
    _renew()
    yield
    _renew()


def _renew() -> None:
    sys.modules.pop("mindworks.planning._triton_kernels", None)
    sys.modules["mindworks.planning"].__dict__.pop("_triton_kernels", None)
    _triton.kernels.cache_clear()


def inputs(form: str, sizes: tuple[int, ...], absent: tuple[str, ...] = (), seed: int = 0) -> dict[str, Tensor | None]:
    """Random arrays that ask for gradients, for `sizes` (B, C, A, F, H, W)."""
    batch, channels, actions, size, height, width = sizes
    generator = torch.Generator().manual_seed(seed)
    maps, cells = 1 if "shared" in form else batch, (1, 1) if "static" in form else (height, width)
    shapes = {
        "transition": (maps, channels, actions, channels * size * size, *cells),
        "reward": (batch, channels, height, width),
        "initial": (batch, channels, height, width),
        "bias": (batch, channels, actions, height, width),
    }
    found: dict[str, Tensor | None] = {
        name: None if name in absent else torch.randn(shape, generator=generator) for name, shape in shapes.items()
    }
    assert found["transition"] is not None
    found["transition"] /= (channels * size * size) ** 0.5
    return {name: None if x is None else x.requires_grad_() for name, x in found.items()}


def forced(sizes: tuple[int, ...], layers: int) -> Tensor:
    """Random actions, -1 where the best is followed."""
    batch, channels, actions, _, height, width = sizes
    generator = torch.Generator().manual_seed(2)
    return torch.randint(-1, actions, (layers, batch, channels, height, width), generator=generator).to(torch.int8)


def both(
    args: dict[str, Tensor | None], sizes: tuple[int, ...], keep: tuple[int, ...], **options: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """Values and gradients of a random sum of them, by the kernels and by the reference."""
    shape = (sizes[0], sizes[1], sizes[4], sizes[5])
    options = {"bias": args["bias"], "actions": None, "discount": 1.0, "segment": 0, **options}
    transition, reward, initial = args["transition"], args["reward"], args["initial"]
    assert transition is not None
    ours = _triton.iterate(transition, reward, initial, keep, shape=shape, **options)
    start = torch.zeros(shape) if initial is None else initial
    theirs = _reference.iterate(transition, reward, start, keep, **{**options, "segment": 0})
    weights = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1))
    wanted = [x for x in args.values() if x is not None]
    return tuple([out.detach(), *torch.autograd.grad(out, wanted, weights)] for out in (ours, theirs))


def assert_close(got: list[Tensor], expected: list[Tensor]) -> None:
    for x, y in zip(got, expected, strict=True):
        assert x.shape == y.shape
        assert float((x - y).abs().max()) <= 1e-5 * max(1.0, float(y.abs().max()))


@pytest.fixture(params=["one program", "blocks"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Maps as one program each, or in blocks of fewer states than a map has, launched layer by layer."""
    if request.param == "blocks":
        monkeypatch.setattr(_triton, "ONE_PROGRAM", 0)
        monkeypatch.setattr(_triton, "BLOCK", 32)
    return request.param


@pytest.mark.parametrize("form", FORMS)
def test_kernels_of_all_forms(form: str, way: str) -> None:
    sizes = (2, 1, 4, 3, 6, 7)
    assert_close(*both(inputs(form, sizes), sizes, (2, 3)))


def test_all_options_at_once(way: str) -> None:
    sizes = (2, 2, 3, 3, 5, 4)
    args = inputs("dynamic", sizes)
    assert_close(*both(args, sizes, (1, 3), actions=forced(sizes, 3), discount=0.9))


@pytest.mark.parametrize("segment", [1, 2, 3])
def test_segments_give_the_same(segment: int, way: str) -> None:
    sizes = (1, 1, 3, 3, 6, 6)
    assert_close(*both(inputs("dynamic", sizes), sizes, (2, 3, 5), segment=segment, discount=0.8))


@pytest.mark.parametrize("absent", [("bias",), ("reward", "initial"), ("bias", "reward")])
def test_absent_arrays(absent: tuple[str, ...], way: str) -> None:
    sizes = (2, 1, 2, 3, 4, 9)
    assert_close(*both(inputs("static shared", sizes, absent), sizes, (3,)))


@pytest.mark.parametrize("sizes", [(1, 1, 2, 1, 1, 1), (3, 1, 2, 3, 1, 5), (1, 1, 2, 5, 4, 4), (1, 3, 2, 3, 3, 3)])
def test_small_sizes_and_wide_windows(sizes: tuple[int, ...]) -> None:
    assert_close(*both(inputs("dynamic", sizes), sizes, (2,)))


def test_a_transition_too_large_for_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "REGISTERS", 0)
    sizes = (1, 1, 4, 3, 5, 5)
    assert_close(*both(inputs("dynamic", sizes), sizes, (2,)))


def test_the_first_of_several_best_actions_gets_the_gradient() -> None:
    transition = torch.zeros(1, 1, 3, 9, 3, 3)
    transition[:, :, :, 4] = 1.0  # every action stays
    transition.requires_grad_()
    reward = torch.ones(1, 1, 3, 3)
    options: dict[str, Any] = {"bias": None, "actions": None, "discount": 1.0, "segment": 0}
    values = _triton.iterate(transition, reward, None, (2,), shape=(1, 1, 3, 3), **options)
    (gradient,) = torch.autograd.grad(values.sum(), transition)
    assert gradient[:, :, 0].abs().sum() > 0
    assert gradient[:, :, 1:].abs().sum() == 0


def test_without_gradients_nothing_is_held() -> None:
    sizes = (1, 1, 3, 3, 5, 5)
    args = inputs("dynamic", sizes)
    with torch.no_grad():
        options: dict[str, Any] = {"bias": args["bias"], "actions": None, "discount": 1.0, "segment": None}
        shape = (1, 1, 5, 5)
        ours = _triton.iterate(args["transition"], args["reward"], args["initial"], (1, 4), shape=shape, **options)
        theirs = _reference.iterate(args["transition"], args["reward"], args["initial"], (1, 4), **options)
    assert not ours.requires_grad
    assert_close([ours], [theirs])


def test_only_what_is_asked_for_is_computed() -> None:
    sizes = (1, 1, 2, 3, 4, 4)
    args = inputs("dynamic", sizes)
    for name in ("transition", "bias", "initial"):
        args[name].requires_grad_(False)
    options: dict[str, Any] = {"bias": args["bias"], "actions": None, "discount": 1.0, "segment": 2}
    three = (args["transition"], args["reward"], args["initial"])
    ours = _triton.iterate(*three, (3,), shape=(1, 1, 4, 4), **options)
    theirs = _reference.iterate(*three, (3,), **options)
    assert_close(*([torch.autograd.grad(out.sum(), args["reward"])[0]] for out in (ours, theirs)))


def test_a_change_in_between_is_refused() -> None:
    sizes = (1, 1, 2, 3, 3, 3)
    args = inputs("dynamic", sizes)
    scale = torch.ones((), requires_grad=True)
    transition = args["transition"] * scale
    options: dict[str, Any] = {"bias": None, "actions": None, "discount": 1.0, "segment": 0}
    values = _triton.iterate(transition, args["reward"], None, (2,), shape=(1, 1, 3, 3), **options)
    transition.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        values.sum().backward()


def test_the_cpu_is_not_supported() -> None:
    assert not _triton.supports(torch.zeros(1, 1, 4, 9, 5, 5))


@pytest.mark.parametrize("kernel", ["forward", "backward", "add_transition"])
def test_the_kernels_compile_for_a_gpu(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler takes less of Python than the interpreter."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.delenv("TRITON_INTERPRET")
    _renew()
    function = getattr(_triton.kernels(), kernel)
    numbers = {"C": 2, "A": 3, "K": 18, "F": 3, "H": 7, "W": 5, "PLANE": 35, "CELL": 1, "BLOCK": 128, "HELD": False}
    constants = {"TAPS": 9, **numbers}
    kinds = {"actions": "*i8", "choices": "*u8", "slots": "*i32", "state": "*i32", "discount": "fp32"}
    arrays = ("T", "bias", "R", "store", "out", "G", "kept", "gR", "gT", "gbias")
    kinds |= dict.fromkeys(arrays, "*fp32")
    names = function.arg_names
    signature = {name: "constexpr" if name in constants else kinds.get(name, "i32") for name in names}
    source = ASTSource(function, signature, {name: constants[name] for name in names if name in constants})
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]
