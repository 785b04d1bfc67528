"""Value iteration against a plain loop, the fused kernels against the reference, and what memory it takes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mindworks.errors import InputError
from mindworks.planning import _fused, _jit
from mindworks.planning.value_iteration import backends, pack, q_values, value_iteration, window

fused = pytest.mark.skipif(not _jit.available(), reason="numba is not installed")
BACKENDS = ["torch", pytest.param("fused", marks=fused)]
SIZES = [(1, 4, 3), (4, 3, 3), (1, 8, 5), (2, 10, 1)]  # C, A, F: each is compiled once per machine
FORMS = ["dynamic", "dynamic shared", "static", "static shared"]


def inputs(form, batch, channels, actions, size, height, width, *, bias=False, dtype=torch.float32, seed=0):
    """Random (transition, reward, initial, bias or None) that ask for gradients, of values around 1."""
    generator = torch.Generator().manual_seed(seed)
    maps = 1 if "shared" in form else batch
    cells = (1, 1) if "static" in form else (height, width)
    shapes = [(maps, channels, actions, channels * size * size, *cells)] + 2 * [(batch, channels, height, width)]
    shapes += [(batch, channels, actions, height, width)] if bias else []
    tensors = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    tensors[0] /= (channels * size * size) ** 0.5
    return [tensor.requires_grad_() for tensor in tensors] + ([] if bias else [None])


def run(args, layers, *, seed=1, **options):
    """The values and the gradients of their random sum."""
    transition, reward, initial, bias = args
    values = value_iteration(transition, reward, layers, bias=bias, initial=initial, **options)
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(seed), dtype=values.dtype)
    wanted = [x for x in args if x is not None]
    return [values.detach(), *torch.autograd.grad(values, wanted, weights)]


def assert_close(got: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    for name, x, y in zip(("values", "transition", "reward", "initial", "bias"), got, expected, strict=False):
        assert x.shape == y.shape, name
        assert float((x - y).abs().max() / y.abs().max()) < tolerance, name


def plain(transition, reward, initial, bias, actions, layers, discount):
    """Value iteration cell by cell in Python floats."""
    batch, channels, height, width = reward.shape
    num_actions, taps = transition.shape[2:4]
    size = round((taps / channels) ** 0.5)
    values = initial.clone()
    for layer in range(layers):
        new = torch.zeros_like(values)
        for b, c, i, j in torch.cartesian_prod(*map(torch.arange, (batch, channels, height, width))).tolist():
            q = [float(bias[b, c, a, i, j]) for a in range(num_actions)]
            for a in range(num_actions):
                for k in range(taps):
                    source, row = k // size**2, i + k % size**2 // size - size // 2
                    column = j + k % size - size // 2
                    if 0 <= row < height and 0 <= column < width:
                        arrived = reward[b, source, row, column] + discount * values[b, source, row, column]
                        q[a] += float(transition[b, c, a, k, i, j] * arrived)
            given_action = int(actions[layer, b, c, i, j])
            new[b, c, i, j] = max(q) if given_action < 0 else q[given_action]
        values = new
    return values


@pytest.mark.parametrize("backend", BACKENDS)
def test_against_a_plain_loop(backend: str) -> None:
    args = [x.detach() for x in inputs("dynamic", 2, 4, 3, 3, 4, 3, bias=True, dtype=torch.float64)]
    actions = torch.randint(-1, 3, (3, 2, 4, 4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
    expected = plain(*args, actions, 3, 0.9)
    dtype = torch.float64 if backend == "torch" else torch.float32
    transition, reward, initial, bias = (x.to(dtype) for x in args)
    got = value_iteration(
        transition, reward, 3, bias=bias, initial=initial, actions=actions, discount=0.9, backend=backend
    )
    assert_close([got[0].double()], [expected], 1e-12 if backend == "torch" else 1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_one_layer_is_the_best_of_q_values(form: str) -> None:
    transition, reward, initial, bias = inputs(form, 3, 2, 3, 5, 6, 4, bias=True, dtype=torch.float64)
    best = q_values(transition, reward, initial, bias=bias, discount=0.7).amax(2)
    got = value_iteration(transition, reward, 1, bias=bias, initial=initial, discount=0.7)
    torch.testing.assert_close(got[0], best)


def test_window_counts_channels_then_rows_then_columns() -> None:
    values = torch.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4)
    around = window(values, 3)[0, :, 1, 1]
    assert around.tolist() == values[0, :, :3, :3].flatten().tolist()
    assert window(values, 3)[0, :, 0, 0].count_nonzero() == 7  # 4 states on the map in each channel, one of them is 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("segment", [0, 2])
def test_reference_gradients(form: str, segment: int) -> None:
    args = inputs(form, 2, 2, 2, 3, 3, 2, bias=True, dtype=torch.float64)
    actions = torch.randint(-1, 2, (3, 2, 2, 3, 2), generator=torch.Generator().manual_seed(2), dtype=torch.int8)

    def call(transition, reward, initial, bias):
        options = {"actions": actions, "discount": 0.9, "segment": segment, "backend": "torch"}
        return value_iteration(transition, reward, 3, bias=bias, initial=initial, keep=[2, 3], **options)

    assert torch.autograd.gradcheck(call, args, fast_mode=form != "static shared")


@fused
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("channels", "actions", "size"), SIZES)
def test_fused_against_reference(channels: int, actions: int, size: int, form: str) -> None:
    args = inputs(form, 5, channels, actions, size, 6, 11)
    options = {"keep": [2, 9], "discount": 0.95}
    expected = run(args, 9, backend="torch", **options)
    assert_close(run(args, 9, backend="fused", **options), expected)


@fused
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 7, 16), (5, 9, 8), (2, 1, 1), (1, 2, 19)])
@pytest.mark.parametrize("form", ["dynamic", "static shared"])
def test_shapes_of_maps(form: str, batch: int, height: int, width: int) -> None:
    args = inputs(form, batch, 1, 4, 3, height, width)
    assert_close(run(args, 11, backend="fused"), run(args, 11, backend="torch"))


@fused
def test_one_action_on_a_wide_map() -> None:
    args = inputs("dynamic", 1, 1, 1, 3, 3, 140)
    assert_close(run(args, 3, backend="fused"), run(args, 3, backend="torch"))


@fused
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("segment", [0, 4])
def test_fused_with_bias_and_prescribed_actions(form: str, segment: int) -> None:
    args = inputs(form, 3, 4, 3, 3, 5, 9, bias=True)
    actions = torch.randint(-1, 3, (10, 3, 4, 5, 9), generator=torch.Generator().manual_seed(3), dtype=torch.int8)
    options = {"actions": actions, "keep": [1, 4, 10], "discount": 0.9, "segment": segment}
    assert_close(run(args, 10, backend="fused", **options), run(args, 10, backend="torch", **options))


@fused
def test_actions_change_the_values() -> None:
    transition, reward, *_ = inputs("dynamic", 1, 1, 4, 3, 5, 9)
    first = torch.zeros(2, 1, 1, 5, 9, dtype=torch.int8)
    free = value_iteration(transition, reward, 2)
    forced = value_iteration(transition, reward, 2, actions=first)
    alone = value_iteration(transition[:, :, :1], reward, 2, backend="torch")
    torch.testing.assert_close(forced, alone, rtol=1e-5, atol=1e-5)
    assert (free - forced).abs().max() > 0.1
    assert torch.equal(value_iteration(transition, reward, 2, actions=first - 1), free)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_of_equal_actions_gets_the_gradient(backend: str) -> None:
    transition = torch.ones(1, 1, 4, 9, 3, 3, requires_grad=True)
    value_iteration(transition, torch.ones(1, 1, 3, 3), 2, backend=backend).sum().backward()
    assert transition.grad is not None
    assert transition.grad[:, :, 0].min() >= 0
    assert transition.grad[:, :, 0].max() > 0
    assert transition.grad[:, :, 1:].abs().max() == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["dynamic", "static shared"])
@pytest.mark.parametrize("segment", [1, 3, 7, 100])
def test_segments_change_no_bit(backend: str, form: str, segment: int) -> None:
    args = inputs(form, 2, 1, 4, 3, 5, 9)
    options = {"keep": [1, 6, 7, 12], "backend": backend}
    values, *gradients = run(args, 12, segment=0, **options)
    again, *others = run(args, 12, segment=segment, **options)
    assert torch.equal(values, again)
    # A kernel that all cells share adds up their gradients for a few layers at a time: by segments, other ones.
    shared = form == "static shared"
    torch.testing.assert_close(others[0], gradients[0], rtol=1e-5 * shared, atol=1e-5 * shared)
    assert torch.equal(others[1], gradients[1])
    assert torch.equal(others[2], gradients[2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_keep_returns_the_layers_it_names(backend: str) -> None:
    transition, reward, *_ = inputs("dynamic", 2, 1, 4, 3, 5, 9)
    every = value_iteration(transition, reward, 8, keep=range(1, 9), backend=backend)
    assert every.shape == (8, 2, 1, 5, 9)
    some = value_iteration(transition, reward, 8, keep=[3, 5], backend=backend)
    assert torch.equal(some, every[[2, 4]])
    assert torch.equal(value_iteration(transition, reward, 8, backend=backend), every[-1:])
    with torch.no_grad():
        assert torch.equal(value_iteration(transition, reward, 8, keep=[3, 5], backend=backend), some)
        assert torch.equal(value_iteration(transition, reward, 3, backend=backend), some[:1])


@pytest.mark.parametrize("backend", BACKENDS)
@torch.no_grad()
def test_chunks_are_one_long_call(backend: str) -> None:
    transition, reward, *_ = inputs("dynamic", 2, 1, 4, 3, 5, 9)
    packed = pack(transition)
    values = None
    for _ in range(3):
        values = value_iteration(packed, reward, 5, initial=values, backend=backend)[0]
    assert torch.equal(values, value_iteration(transition, reward, 15, backend=backend)[0])


def test_gradients_pass_through_a_packed_transition() -> None:
    transition, reward, *_ = inputs("dynamic", 2, 1, 4, 3, 5, 9)
    expected = torch.autograd.grad(value_iteration(transition, reward, 4).sum(), transition)[0]
    got = torch.autograd.grad(value_iteration(pack(transition), reward, 4).sum(), transition)[0]
    assert torch.equal(got, expected)
    assert expected.abs().max() > 0


@fused
def test_later_changes_of_the_inputs_do_not_reach_the_gradients() -> None:
    args = inputs("dynamic", 2, 4, 3, 3, 5, 8, bias=True)  # 8 wide: nothing needs padding, so nothing is copied for it
    actions = torch.full((4, 2, 4, 5, 8), -1, dtype=torch.int8)
    expected = run(args, 4, actions=actions, backend="fused")
    copies = [x.detach().clone().requires_grad_() for x in args]
    transition, reward, initial, bias = copies
    values = value_iteration(transition, reward, 4, bias=bias, initial=initial, actions=actions, backend="fused")
    with torch.no_grad():
        for x in copies:
            x.zero_()
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    for got, x in zip(torch.autograd.grad(values, copies, weights), expected[1:], strict=True):
        assert torch.equal(got, x)


@fused
def test_transposed_inputs() -> None:
    transition, reward, initial, _ = inputs("dynamic", 2, 1, 4, 3, 5, 9)
    turned = [x.detach().transpose(-1, -2).contiguous().transpose(-1, -2) for x in (transition, reward, initial)]
    expected = value_iteration(transition, reward, 4, initial=initial, backend="fused")
    assert torch.equal(value_iteration(turned[0], turned[1], 4, initial=turned[2], backend="fused"), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_reward(backend: str) -> None:
    transition, reward, initial, _ = inputs("dynamic", 2, 1, 4, 3, 5, 9)
    expected = value_iteration(transition, torch.zeros_like(reward), 4, initial=initial, backend=backend)
    assert torch.equal(value_iteration(transition, None, 4, initial=initial, backend=backend), expected)
    assert expected.abs().max() > 0


@fused
def test_two_thousand_layers() -> None:
    transition, reward, *_ = inputs("dynamic", 1, 1, 4, 3, 31, 31)
    transition = (4 * transition.detach()).softmax(3).requires_grad_()
    args = [transition, reward, None, None]
    full = run(args, 2000, segment=0)
    parts = run(args, 2000, segment=50)
    assert torch.equal(full[0], parts[0])
    for expected, got in zip(full[1:], parts[1:], strict=True):
        assert got.isfinite().all()
        assert float((got - expected).abs().max() / expected.abs().max()) < 1e-5
    assert full[1].abs().max() > 0


PEAK = """
import re
import torch
from mindworks.planning.value_iteration import value_iteration
transition = torch.rand(1, 1, 4, 9, 64, 64).softmax(3).requires_grad_()
reward = torch.rand(1, 1, 64, 64)
value_iteration(transition, reward, 100, segment=40, backend="fused").sum().backward()
def now(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
open("/proc/self/clear_refs", "w").write("5")  # the peak so far, which is that of the imports, is forgotten
before = now("VmRSS")
value_iteration(transition, reward, 2000, segment={segment}, backend="fused").sum().backward()
print(now("VmHWM") - before)
"""


def peak_kilobytes(segment: int) -> int:
    """What 2000 layers of 64 x 64 cells take beyond a process that has already run some."""
    code = PEAK.format(segment=segment)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return int(done.stdout)


@fused
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel tells no peaks")
def test_segments_bound_the_memory() -> None:
    assert peak_kilobytes(0) > 35_000  # 5 bytes a cell and layer are 41 MB
    assert peak_kilobytes(40) < 8_000


def test_segments_bound_the_memory_of_the_reference() -> None:
    held = {}
    for segment in (0, 10):
        args = inputs("dynamic", 1, 1, 4, 3, 8, 8)
        kept = []  # numbers of every tensor that the graph holds on to; views of the transition are few

        def hold(tensor, kept=kept):
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            value_iteration(*args[:2], 100, segment=segment, backend="torch")
        held[segment] = sum(kept)
    assert held[10] < held[0] / 5


def test_what_is_held_without_gradients() -> None:
    transition, reward, *_ = inputs("dynamic", 1, 1, 4, 3, 3, 8)
    assert value_iteration(transition, reward, 5).requires_grad
    with torch.no_grad():
        assert not value_iteration(transition, reward, 5).requires_grad
    assert not value_iteration(transition.detach(), reward.detach(), 5).requires_grad


@fused
def test_layers_that_are_not_kept_share_a_plane() -> None:
    call = _fused.Call(1, 1, 4, 3, 3, 8, 6, (2, 6), 1.0, 3, torch.Size((1, 1, 4, 9, 3, 8)), None, None, None)
    assert call.stored("nothing") == [0, 0, 1, 0, 0, 0, 2]
    assert call.stored("borders") == [1, 0, 2, 3, 0, 0, 4]
    assert call.stored("all") == list(range(7))


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    transition, reward, *_ = inputs("dynamic", 1, 1, 4, 3, 5, 9)
    expected = value_iteration(transition, reward, 4, backend="torch")
    monkeypatch.setitem(sys.modules, "numba", None)
    assert backends() == ("torch",)
    assert pack(transition).data is None
    assert torch.equal(value_iteration(transition, reward, 4), expected)
    assert torch.equal(value_iteration(pack(transition), reward, 4), expected)
    with pytest.raises(InputError, match=r"backend .*'torch'.*'fused'"):
        value_iteration(transition, reward, 4, backend="fused")


@fused
def test_auto_leaves_what_the_kernels_cannot_do_to_torch() -> None:
    assert backends()[0] == "fused"
    many = torch.randn(1, 1, 80, 9, 1, 1)
    assert value_iteration(many, torch.randn(1, 1, 4, 4), 2).shape == (1, 1, 1, 4, 4)
    double = torch.randn(1, 1, 4, 9, 1, 1, dtype=torch.float64)
    assert value_iteration(double, torch.randn(1, 1, 4, 4, dtype=torch.float64), 2).dtype == torch.float64
    for transition in (many, double):
        with pytest.raises(InputError, match="backend fused"):
            value_iteration(transition, None, 2, backend="fused")


T, R = torch.zeros(2, 1, 4, 9, 5, 6), torch.zeros(2, 1, 5, 6)
A = torch.zeros(3, 2, 1, 5, 6, dtype=torch.int8)


@pytest.mark.parametrize(
    ("name", "transition", "reward", "options"),
    [
        ("transition", T[0], R, {}),
        ("transition", torch.zeros(2, 1, 4, 4, 5, 6), R, {}),
        ("transition", torch.zeros(2, 2, 4, 9, 5, 6), torch.zeros(2, 2, 5, 6), {}),
        ("transition", T[:, :, :0], R, {}),
        ("transition", T.int(), R, {}),
        ("transition", torch.zeros(3, 1, 4, 9, 5, 6), R, {}),
        ("transition", T[..., :1], R, {}),
        ("reward", T, R[0], {}),
        ("reward", T, R.double(), {}),
        ("reward", T, torch.zeros(2, 2, 5, 6), {}),
        ("bias", T, R, {"bias": torch.zeros(2, 1, 3, 5, 6)}),
        ("bias", T, R, {"bias": R}),
        ("initial", T, R, {"initial": torch.zeros(2, 1, 6, 5)}),
        ("initial", T, R, {"initial": R.double()}),
        ("actions", T, R, {"actions": A.long()}),
        ("actions", T, R, {"actions": A[:2]}),
        ("actions", T, R, {"actions": A + 4}),
        ("actions", T, R, {"actions": A - 2}),
        ("keep", T, R, {"keep": []}),
        ("keep", T, R, {"keep": [0]}),
        ("keep", T, R, {"keep": [4]}),
        ("keep", T, R, {"keep": [2, 2]}),
        ("keep", T, R, {"keep": [3, 1]}),
        ("layers", T, R, {"layers": 0}),
        ("segment", T, R, {"segment": -1}),
        ("backend", T, R, {"backend": "quantum"}),
    ],
)
def test_bad_input_is_named(name: str, transition: Tensor, reward: Tensor, options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"^{name} "):
        value_iteration(transition, reward, **{"layers": 3, **options})


SEEDS = st.integers(0, 2**16)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, layers=st.integers(1, 9), height=st.integers(1, 6), width=st.integers(1, 18))
def test_more_reward_is_never_worth_less(seed: int, layers: int, height: int, width: int) -> None:
    transition, reward, initial, _ = (
        x if x is None else x.detach() for x in inputs("dynamic", 2, 1, 4, 3, height, width, seed=seed)
    )
    transition = transition.softmax(3)
    more = reward + torch.rand(reward.shape, generator=torch.Generator().manual_seed(seed))
    low, high = (value_iteration(transition, r, layers, initial=initial)[0] for r in (reward, more))
    assert (high - low).min() >= -1e-5
    assert (high - low).max() > 0


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, layers=st.integers(1, 4), more=st.floats(-3, 3), discount=st.floats(0.5, 1))
def test_a_constant_reward_adds_up_away_from_the_edge(seed: int, layers: int, more: float, discount: float) -> None:
    transition, reward, *_ = (
        x if x is None else x.detach() for x in inputs("dynamic shared", 2, 1, 4, 3, 11, 13, seed=seed)
    )
    transition = transition.softmax(3)
    before, after = (value_iteration(transition, r, layers, discount=discount)[0] for r in (reward, reward + more))
    inner = (after - before)[..., layers:-layers, layers:-layers]
    total = more * sum(discount**n for n in range(layers))
    assert (inner - total).abs().max() < 1e-4


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, layers=st.integers(1, 12), segment=st.integers(0, 13))
def test_a_batch_is_its_maps_one_by_one(seed: int, layers: int, segment: int) -> None:
    args = inputs("dynamic", 3, 1, 4, 3, 4, 9, seed=seed)
    together = value_iteration(args[0], args[1], layers, initial=args[2], segment=segment)
    gradients = torch.autograd.grad(together.square().sum(), args[:3])
    for b in range(3):
        one = [x[b : b + 1].detach().requires_grad_() for x in args[:3]]
        alone = value_iteration(one[0], one[1], layers, initial=one[2], segment=segment)
        assert torch.equal(alone[:, 0], together[:, b])
        for got, expected in zip(torch.autograd.grad(alone.square().sum(), one), gradients, strict=True):
            torch.testing.assert_close(got[0], expected[b], rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, layers=st.integers(1, 6))
def test_the_order_of_actions_does_not_matter(seed: int, layers: int) -> None:
    transition, reward, *_ = inputs("static", 2, 1, 4, 3, 4, 9, seed=seed)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    expected = value_iteration(transition, reward, layers)
    assert torch.equal(value_iteration(transition[:, :, order], reward, layers), expected)
