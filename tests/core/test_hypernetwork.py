"""The hypernetwork is a plain loop over tiles, run at once for many seeds, conditions and sizes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.nn.functional import linear

from mindworks.core.hypernetwork import TiledHypernetwork
from mindworks.core.population import MLP
from mindworks.errors import InputError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def fresh(hyper: TiledHypernetwork, *leading: int, seed: int = 0) -> Tensor:
    return hyper.init(*leading, generator=generator(seed), dtype=torch.float64)


def tiled(sizes: tuple[int, ...], **fields) -> TiledHypernetwork:
    return TiledHypernetwork(MLP(sizes), **{"conditions": 2, "tile": 4, "embedding": 3, "hidden": (6, 5)} | fields)


def run(network: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    for i, (weight, bias) in enumerate(network):
        x = linear(x if i == 0 else torch.relu(x), weight, bias)
    return x


def one_kind(parts: list[Tensor], depth: int) -> tuple[list, list]:
    """Take one kind's two networks off the front of `parts`, as plain lists of (weight, bias)."""
    of_z, of_condition, bias = (parts.pop(0) for _ in range(3))
    weight, width = torch.cat([of_z, of_condition], -1), len(of_z) // 2
    rest = [(parts.pop(0), parts.pop(0)[0]) for _ in range(2 * depth)]
    return (
        [(weight[:width], bias[0, :width]), *rest[:depth]],
        [(weight[width:], bias[0, width:]), *rest[depth:]],
    )


def tile_by_tile(hyper: TiledHypernetwork, rho: Tensor, condition: Tensor) -> Tensor:
    """The reference: `theta[P]` of one seed `rho[Q]` at one condition `[C]`, by a double loop over the tiles."""
    parts, sizes, depth = hyper.unflatten(rho), hyper.target.sizes, len(hyper.hidden)
    count = len(sizes) - 1
    embeddings, parts = parts[:count], parts[count:]
    kinds = [one_kind(parts, depth) for _ in range(min(count, 3))]
    theta = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        rows = fan_out if i == count - 1 else hyper.tile
        columns = fan_in if i == 0 else hyper.tile
        weights, biases = kinds[0 if i == 0 else 1 if i == count - 1 else 2]
        starts = list(range(0, fan_in, columns))
        weight = torch.full((fan_out, fan_in), torch.nan, dtype=rho.dtype)
        bias = torch.zeros(fan_out, dtype=rho.dtype)
        tiles = iter(embeddings[i])
        for top in range(0, fan_out, rows):
            for left in starts:
                seen = torch.cat([next(tiles), condition])
                corner = weight[top : top + rows, left : left + columns]
                corner[:] = run(weights, seen).reshape(rows, columns)[: corner.shape[0], : corner.shape[1]]
                strip = bias[top : top + rows]
                strip += run(biases, seen)[: len(strip)] / len(starts)
        assert next(tiles, None) is None
        theta += [weight.flatten() * 2 / fan_in**0.5, bias * 2 / fan_in**0.5]
    if hyper.extra:
        theta.append(run([(parts[0], parts[1][0]), (parts[2], parts[3][0])], condition))
    return torch.cat(theta)


FIELDS = ("conditions", "tile", "embedding", "hidden", "extra")
TARGETS = [(3, 2), (4, 8, 2), (4, 7, 2), (3, 2, 2), (3, 8, 12, 2), (2, 5, 9, 6, 3)]


@pytest.mark.parametrize("sizes", TARGETS, ids=str)
@pytest.mark.parametrize(
    "fields", [{}, {"hidden": (5,), "extra": 2}, {"hidden": (4, 6, 3), "tile": 1, "conditions": 1, "embedding": 1}]
)
def test_all_at_once_equals_a_loop_over_tiles(sizes, fields):
    hyper = tiled(sizes, **fields)
    rho, condition = fresh(hyper, 2), normal(2, 3, hyper.conditions, seed=1)
    theta = hyper.forward(rho, condition)
    expected = torch.stack(
        [torch.stack([tile_by_tile(hyper, r, c) for c in rows]) for r, rows in zip(rho, condition, strict=True)]
    )
    assert theta.shape == (2, 3, hyper.outputs)
    assert hyper.outputs == hyper.target.num_parameters + hyper.extra
    torch.testing.assert_close(theta, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sizes", TARGETS, ids=str)
def test_what_is_made_is_a_population_of_the_target(sizes):
    hyper = tiled(sizes)
    theta = hyper.forward(fresh(hyper, 2), normal(2, 3, 2))
    layers = hyper.target.unflatten(theta)
    assert [weight.shape for weight, _ in layers] == [(2, 3, b, a) for a, b in pairwise(sizes)]
    assert torch.equal(hyper.target.flatten(layers), theta)
    assert hyper.target.forward(theta, normal(5, sizes[0])).shape == (2, 3, 5, sizes[-1])


@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("sizes", TARGETS, ids=str)
def test_a_target_without_biases_gets_the_weights_of_one_with_them(sizes, extra):
    """Whether whole tiles fit the target's sizes or are cropped."""
    full = tiled(sizes, extra=extra)
    bare = TiledHypernetwork(MLP(sizes, bias=False), **{f: getattr(full, f) for f in FIELDS})
    rho, condition = fresh(full, 2), normal(2, 3, 2, seed=1)
    theta, whole = bare.forward(rho, condition), full.forward(rho, condition)
    count, all_of_it = bare.target.num_parameters, full.target.num_parameters
    assert theta.shape == (2, 3, bare.outputs) == (2, 3, sum(a * b for a, b in pairwise(sizes)) + extra)
    layers = full.target.unflatten(whole[..., :all_of_it])
    assert torch.equal(theta[..., :count], torch.cat([weight.flatten(-2) for weight, _ in layers], -1))
    assert torch.equal(theta[..., count:], whole[..., all_of_it:])
    x = normal(5, sizes[0], seed=2)
    without = full.target.flatten([(weight, torch.zeros_like(bias)) for weight, bias in layers])
    outputs = bare.target.forward(theta[..., :count], x)
    torch.testing.assert_close(outputs, full.target.forward(without, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("leading", [(), (1,), (3,), (2, 3)], ids=str)
def test_seeds_and_conditions_side_by_side_equal_each_alone(leading, extra):
    hyper = tiled((3, 6, 5, 2), extra=extra)
    rho, condition = fresh(hyper, *leading), normal(*leading, 4, 2, seed=1)
    theta = hyper.forward(rho, condition)
    assert theta.shape == (*leading, 4, hyper.outputs)
    flat = zip(rho.reshape(-1, rho.shape[-1]), condition.reshape(-1, 4, 2), strict=True)
    alone = torch.stack([torch.cat([hyper.forward(r, row[None]) for row in c]) for r, c in flat])
    torch.testing.assert_close(theta, alone.reshape(theta.shape), rtol=0, atol=1e-12)
    shared = hyper.forward(rho, normal(4, 2, seed=2))
    repeated = hyper.forward(rho, normal(4, 2, seed=2).expand(*leading, 4, 2).clone())
    torch.testing.assert_close(shared, repeated, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sizes", [(3, 2), (2, 4, 2), (2, 3, 5, 2)], ids=str)
@pytest.mark.parametrize("leading", [(), (2,)], ids=str)
def test_gradients_in_parameters_and_condition_are_finite_differences(sizes, leading):
    hyper = tiled(sizes, tile=2, embedding=1, hidden=(3, 2), extra=1)
    rho = fresh(hyper, *leading).requires_grad_(True)
    condition = normal(*leading, 2, 2, seed=1).requires_grad_(True)
    assert torch.autograd.gradcheck(hyper.forward, (rho, condition))


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)], ids=str)
def test_gradients_of_leaves_flatten_to_the_gradient_of_the_vector(leading):
    hyper = tiled((3, 6, 5, 2), extra=1)
    rho, condition = fresh(hyper, *leading), normal(*leading, 4, 2, seed=1)
    weights = normal(*leading, 4, hyper.outputs, seed=2)
    parts = hyper.leaves(rho)
    pieces = torch.autograd.grad((weights * hyper.apply(parts, condition)).sum(), parts)
    vector = rho.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad((weights * hyper.forward(vector, condition)).sum(), vector)
    torch.testing.assert_close(hyper.flatten(pieces), expected, rtol=0, atol=1e-12)
    assert (expected != 0).double().mean() > 0.5


def test_leaves_share_the_memory_of_the_vector_and_stay_out_of_its_graph():
    hyper = tiled((3, 6, 2))
    rho, condition = fresh(hyper, 2).requires_grad_(True), normal(2, 4, 2)
    parts = hyper.leaves(rho)
    assert all(part.is_leaf and part.requires_grad for part in parts)
    with torch.no_grad():
        rho.mul_(0.5)
    assert torch.equal(hyper.apply(parts, condition), hyper.forward(rho, condition))
    hyper.apply(parts, condition).sum().backward()
    assert rho.grad is None


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    leading=st.lists(st.integers(1, 3), max_size=2),
    hidden=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    tile=st.integers(1, 5),
    extra=st.integers(0, 2),
)
def test_flatten_undoes_unflatten_for_every_shape(sizes, leading, hidden, tile, extra):
    hyper = tiled(tuple(sizes), hidden=tuple(hidden), tile=tile, extra=extra)
    rho = fresh(hyper, *leading)
    assert rho.shape == (*leading, hyper.num_parameters)
    assert torch.equal(hyper.flatten(hyper.unflatten(rho)), rho)
    assert hyper.forward(rho, normal(*leading, 2, 2)).shape == (*leading, 2, hyper.outputs)


def test_fresh_embeddings_are_normal_and_weights_uniform_within_one_over_root_fan_in():
    hyper = tiled((9, 8, 8, 3), hidden=(12, 7), extra=2)
    parts = hyper.unflatten(fresh(hyper, 400))
    entries = [part.flatten() for part in parts]
    for z in entries[:3]:
        assert stats.kstest(z.numpy(), "norm").pvalue > 1e-3
    fan_ins = [*[5] * 3, *[12] * 2, *[7] * 2, *[12] * 2, *[7] * 2] * 3 + [2] * 2 + [12] * 2
    for drawn, fan_in in zip(entries[3:], fan_ins, strict=True):
        bound = fan_in**-0.5
        assert 0.99 * bound < drawn.abs().max() <= bound
        assert stats.kstest(drawn.numpy(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-4


def test_the_same_generator_seed_gives_the_same_numbers_and_leaves_the_global_one_alone():
    hyper = tiled((3, 4, 2))
    before = torch.get_rng_state()
    first, again, other = (hyper.init(2, generator=generator(s)) for s in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert first.dtype == torch.float32
    assert hyper.forward(first, torch.zeros(2, 1, 2)).dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_shrink_with_the_root_of_fan_in():
    hyper = tiled((3, 4, 64, 4, 2), hidden=(16,))  # the layers from 4 and from 64 share their networks
    theta = hyper.forward(fresh(hyper, 500), normal(1, 2))
    (_, (from_4, _), (from_64, _), _) = hyper.target.unflatten(theta)
    assert from_4.std() / from_64.std() == pytest.approx(4, rel=0.03)


def test_extra_parameters_know_the_condition_and_no_tile():
    hyper = tiled((3, 6, 2), extra=2)
    rho, condition = fresh(hyper), normal(4, 2)
    parts = hyper.unflatten(rho.clone())
    for part in parts[:-4]:
        part.normal_(generator=generator(1))
    old, new = hyper.forward(rho, condition), hyper.apply(parts, condition)
    assert torch.equal(old[:, -2:], new[:, -2:])
    assert (old[:, :-2] != new[:, :-2]).all()
    assert (old[0, -2:] != old[1, -2:]).all()
    assert torch.equal(tiled((3, 6, 2)).forward(rho[: tiled((3, 6, 2)).num_parameters], condition), old[:, :-2])


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: tiled((3, 2), conditions=0), "conditions.*0"),
        (lambda: tiled((3, 2), tile=0), "tile.*0"),
        (lambda: tiled((3, 2), embedding=0), "embedding.*0"),
        (lambda: tiled((3, 2), hidden=()), "hidden.*()"),
        (lambda: tiled((3, 2), hidden=(4, 0)), "hidden.*0"),
        (lambda: tiled((3, 2), extra=-1), "extra.*-1"),
        (lambda: tiled((3, 2)).unflatten(torch.zeros(7)), "rho.*7"),
        (lambda: tiled((3, 2)).forward(torch.zeros(7), torch.zeros(1, 2)), "rho.*7"),
        (lambda: tiled((3, 2)).forward(fresh(tiled((3, 2))), normal(1, 3)), "condition.*2.*3"),
        (lambda: tiled((3, 2)).forward(fresh(tiled((3, 2))), normal(2)), "condition"),
        (lambda: tiled((3, 2)).forward(fresh(tiled((3, 2)), 2), normal(3, 1, 2)), "condition.*3.*rho.*2"),
        (lambda: tiled((3, 2)).forward(fresh(tiled((3, 2))), normal(3, 1, 2)), "condition.*3.*rho"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
