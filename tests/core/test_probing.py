"""Probing against a double loop over networks and probes, for vectors, images and sequences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise, product

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.func import functional_call

from mindworks.core.population import MLP, Modules
from mindworks.core.probing import Answer, Probing
from mindworks.errors import InputError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


class Recurrent(nn.Module):
    """A GRU written as a loop over `x[..., T, D]` with a readout of its last state; nn.GRU itself knows no vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Linear(2, 9, dtype=torch.float64)
        self.onward = nn.Linear(3, 9, dtype=torch.float64)
        self.readout = nn.Linear(3, 2, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.new_zeros(*x.shape[:-2], 3)
        for step in x.unbind(-2):
            (reset, keep, new), (old_reset, old_keep, old) = (
                layer(value).split(3, -1) for layer, value in ((self.inward, step), (self.onward, hidden))
            )
            keep = torch.sigmoid(keep + old_keep)
            new = torch.tanh(new + torch.sigmoid(reset + old_reset) * old)
            hidden = (1 - keep) * new + keep * hidden
        return self.readout(hidden)


def torchs_gru(theta: Tensor, sequence: Tensor) -> Tensor:
    """The same network by torch's own nn.GRU: one parameter vector, one sequence `[T, D]`."""
    gru = nn.GRU(2, 3, dtype=torch.float64)
    weight, bias, onward, onward_bias, readout, readout_bias = theta.split([18, 9, 27, 9, 6, 2])
    parts = (weight.view(9, 2), onward.view(9, 3), bias, onward_bias)
    named = dict(zip((name for name, _ in gru.named_parameters()), parts, strict=True))
    return readout.view(2, 3) @ functional_call(gru, named, (sequence,))[0][-1] + readout_bias


def sequential(theta: Tensor, network: nn.Sequential, x: Tensor) -> Tensor:
    """The network with the parameters `theta[P]`, differentiable in them."""
    pieces = theta.split([parameter.numel() for parameter in network.parameters()])
    named = {name: piece.view_as(p) for (name, p), piece in zip(network.named_parameters(), pieces, strict=True)}
    return functional_call(network, named, (x,))


def linear_layers(sizes: tuple[int, ...], activation: type[nn.Module]) -> nn.Sequential:
    layers = [(nn.Linear(a, b, dtype=torch.float64), activation()) for a, b in pairwise(sizes)]
    return nn.Sequential(*[module for pair in layers for module in pair][:-1])


# its answer is an image of two channels, 2 x 2: a network may answer with any shape
CONVOLUTION = nn.Sequential(nn.Conv2d(1, 3, 2, dtype=torch.float64), nn.ReLU(), nn.Conv2d(3, 2, 2, dtype=torch.float64))
MLPS = MLP((3, 4, 2))


@dataclass(frozen=True)
class Family:
    """An architecture: its probing, all networks at once, and one network `theta[P]` at one probe."""

    probing: Probing
    networks: MLP | Modules
    alone: Callable[[Tensor, Tensor], Tensor]

    def theta(self, *leading: int, seed: int = 1) -> Tensor:
        return 0.7 * normal(*leading, self.networks.num_parameters, seed=seed)

    def answer(self, theta: Tensor) -> Answer:
        """The networks `theta[..., N, P]` at probes `[..., K, *probe_shape]`."""
        shape = (self.probing.count, *self.probing.probe_shape)
        return lambda probes: self.networks.forward(
            theta, probes.unsqueeze(-1 - len(shape)).expand(*theta.shape[:-1], *shape)
        )


FAMILIES = {
    "vectors": Family(
        Probing((3,), 4, 2, (5, 6)), MLPS, lambda theta, x: sequential(theta, linear_layers(MLPS.sizes, nn.Tanh), x)
    ),
    "images": Family(
        Probing((1, 4, 4), 2, 8, (6,)),
        Modules(CONVOLUTION),
        lambda theta, x: sequential(theta, CONVOLUTION, x.unsqueeze(0)),
    ),
    "sequences": Family(Probing((4, 2), 3, 2, (6,)), Modules(Recurrent()), torchs_gru),
}
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
SMALL = FAMILIES["vectors"]


def plain(family: Family, probing: Probing, phi: Tensor, theta: Tensor, *extra: Tensor) -> Tensor:
    """The reference `[N, outputs]` for `phi[Q]`, `theta[N, P]`: every network at every probe, one at a time."""
    size = torch.Size(probing.probe_shape).numel()
    entries = probing.count * size
    features = probing.count * probing.answer_size + probing.extra
    evaluator = linear_layers((features, *probing.hidden, probing.outputs), nn.ReLU)
    rows = []
    for n, vector in enumerate(theta):
        probes = phi[:entries].split(size)
        answers = [family.alone(vector, probe.view(probing.probe_shape)).flatten() for probe in probes]
        rows.append(sequential(phi[entries:], evaluator, torch.cat([*(x[n] for x in extra), *answers])))
    return torch.stack(rows)


@every_family
@pytest.mark.parametrize("leading", [(), (2,), (2, 3)], ids=["one", "seeds", "seeds and members"])
def test_evaluations_equal_a_double_loop_over_networks_and_probes(family, leading):
    probing = family.probing
    phi = probing.init(*leading, generator=generator(), dtype=torch.float64)
    theta = family.theta(*leading, 3)
    ours = probing.forward(phi, family.answer(theta))
    assert ours.shape == (*leading, 3, 1)
    assert ours.std() > 1e-3
    for index in product(*map(range, leading)):
        expected = plain(family, probing, phi[index], theta[index])
        torch.testing.assert_close(ours[index], expected.detach(), rtol=0, atol=1e-12)
        alone = probing.forward(phi[index], family.answer(theta[index]))
        torch.testing.assert_close(ours[index], alone, rtol=0, atol=1e-12)


@every_family
def test_gradients_reach_the_probes_the_evaluator_and_the_networks(family):
    phi = family.probing.init(generator=generator(), dtype=torch.float64).requires_grad_()
    theta = family.theta(3).requires_grad_()
    weights = normal(3, 1, seed=2)
    values = family.probing.forward(phi, family.answer(theta)), plain(family, family.probing, phi, theta)
    ours, expected = (torch.autograd.grad((weights * value).sum(), (phi, theta)) for value in values)
    for gradient, reference in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=0, atol=1e-11)
    assert (family.probing.probes(ours[0]) != 0).any(), "no probe mattered, so nothing was compared"


def test_an_embedding_lists_the_answers_probe_by_probe():
    probes = normal(4, 3)
    embedding = SMALL.probing.embed(probes, SMALL.answer(SMALL.theta(5)))
    expected = torch.stack([torch.cat([SMALL.alone(vector, probe) for probe in probes]) for vector in SMALL.theta(5)])
    torch.testing.assert_close(embedding, expected.detach(), rtol=0, atol=1e-12)


def test_single_numbers_may_come_without_a_dimension_of_their_own():
    probing = Probing((3,), 4, 1)
    phi = probing.init(2, generator=generator())
    answers = torch.randn(2, 5, 4, generator=generator(1))
    flat, deep = (
        probing.forward(phi, lambda _, shape=shape: answers.view(shape)) for shape in [(2, 5, 4), (2, 5, 4, 1)]
    )
    assert torch.equal(flat, deep)


@pytest.mark.parametrize("leading", [(), (2,)], ids=["one", "seeds"])
def test_extra_features_stand_beside_the_answers(leading):
    probing = replace(SMALL.probing, extra=3, outputs=2)
    phi = probing.init(*leading, generator=generator(), dtype=torch.float64)
    theta, first, second = SMALL.theta(*leading, 5), normal(*leading, 5, 2, seed=2), normal(*leading, 5, 1, seed=3)
    ours = probing.forward(phi, SMALL.answer(theta), first, second)
    for index in product(*map(range, leading)):
        expected = plain(SMALL, probing, phi[index], theta[index], first[index], second[index])
        torch.testing.assert_close(ours[index], expected.detach(), rtol=0, atol=1e-12)
    one_network = SMALL.answer(theta[..., :1, :])  # beside the features of five
    shared = probing.forward(phi, SMALL.answer(theta[..., :1, :].expand(*leading, 5, -1)), first, second)
    torch.testing.assert_close(probing.forward(phi, one_network, first, second), shared, rtol=0, atol=1e-12)


@every_family
@pytest.mark.parametrize("leading", [(), (2, 3)], ids=["one", "many"])
def test_the_parts_are_views_and_flatten_puts_them_together_again(family, leading):
    probing = family.probing
    phi = normal(*leading, probing.num_parameters)
    probes, layers = probing.unflatten(phi)
    assert probes.shape == (*leading, probing.count, *probing.probe_shape)
    assert torch.equal(probing.flatten(probes, layers), phi)
    assert torch.equal(probing.probes(phi), probes)
    assert torch.equal(probing.split(phi)[1], probing.evaluator.flatten(layers))
    with torch.no_grad():
        leaves, leaf_layers = probing.leaves(phi)
        for part in (leaves, *(part for layer in leaf_layers for part in layer)):
            assert part.is_leaf
            assert part.requires_grad
            part.mul_(2)
    assert torch.equal(probing.flatten(probes, layers), phi)
    assert torch.equal(phi, 2 * normal(*leading, probing.num_parameters))
    assert not phi.requires_grad


def test_parameters_are_the_entries_of_the_probes_and_the_weights_of_the_evaluator():
    probing = Probing((1, 4, 4), 3, 2, (5,), outputs=4, extra=7)
    assert probing.embedding_size == 6
    assert probing.num_parameters == 3 * 16 + (13 * 5 + 5) + (5 * 4 + 4)


@every_family
@pytest.mark.parametrize(("leading", "outputs"), [((), 1), ((), 3), ((2,), 1), ((2, 2), 3)])
def test_the_gradient_of_the_squared_error_is_that_of_a_plainly_written_loss(family, leading, outputs):
    probing = replace(family.probing, outputs=outputs)
    phi = probing.init(*leading, generator=generator(), dtype=torch.float64)
    theta = family.theta(*leading, 3)
    target = normal(*leading, 3, *((outputs,) if outputs > 1 else ()), seed=4)
    kept = phi.clone()
    ours = probing.squared_error_gradient(phi, family.answer(theta), target)
    assert torch.equal(phi, kept)
    for index in product(*map(range, leading)):
        flat = phi[index].clone().requires_grad_()
        error = plain(family, probing, flat, theta[index]) - target[index].view(3, outputs)
        (expected,) = torch.autograd.grad(error.square().mean(), flat)
        torch.testing.assert_close(ours[index], expected, rtol=0, atol=1e-11)


def test_the_gradient_of_the_squared_error_agrees_with_finite_differences():
    probing = replace(SMALL.probing, outputs=2)
    phi = probing.init(2, generator=generator(), dtype=torch.float64)
    answer, target = SMALL.answer(SMALL.theta(2, 3)), normal(2, 3, 2, seed=4)
    ours = probing.squared_error_gradient(phi, answer, target)
    step = 1e-6 * torch.eye(probing.num_parameters, dtype=torch.float64)

    def losses(moved: Tensor) -> Tensor:
        return (probing.forward(moved, answer) - target).square().mean((1, 2))

    differences = torch.stack([losses(phi + row) - losses(phi - row) for row in step], -1) / 2e-6
    torch.testing.assert_close(ours, differences, rtol=0, atol=1e-8)


def test_steps_along_the_gradient_fit_the_targets_by_moving_the_probes_too():
    probing, theta = SMALL.probing, SMALL.theta(12)
    phi = probing.init(generator=generator(), dtype=torch.float64)
    start = phi.clone()
    target = SMALL.networks.forward(theta, torch.full((12, 1, 3), 0.7, dtype=torch.float64))[:, 0, 0]
    for _ in range(200):
        phi -= 0.1 * probing.squared_error_gradient(phi, SMALL.answer(theta), target)
    errors = [(probing.forward(at, SMALL.answer(theta)).squeeze(-1) - target).square().mean() for at in (start, phi)]
    assert errors[1] < 0.2 * errors[0]
    assert (probing.probes(phi) != probing.probes(start)).all()


def test_fresh_probes_are_uniform_between_their_bounds_beside_an_ordinary_evaluator():
    probing = Probing((2, 5), 6, 3, (4,), low=-1.0, high=3.0)
    phi = probing.init(40, generator=generator(), dtype=torch.float64)
    probes, weights = probing.split(phi)
    assert probes.shape == (40, 6, 2, 5)
    assert stats.kstest(probes.flatten().numpy(), stats.uniform(-1, 4).cdf).pvalue > 1e-3
    for (fan_in, _), layer in zip(pairwise((18, 4, 1)), probing.evaluator.unflatten(weights), strict=True):
        for part in layer:
            assert part.abs().max() <= fan_in**-0.5
            assert part.std() == pytest.approx((3 * fan_in) ** -0.5, rel=0.15)
    flat = Probing((3,), 2, 1, low=0.5, high=0.5)
    assert (flat.probes(flat.init(generator=generator())) == 0.5).all()


def test_the_same_generator_seed_gives_the_same_parameters_in_the_type_asked_for():
    first, again, other = (SMALL.probing.init(2, generator=generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert first.dtype == torch.float32
    probes = SMALL.probing.probes(first)
    assert probes.min() >= 0
    assert probes.max() <= 1


PHI = SMALL.probing.init(2, generator=generator())
WIDE = replace(SMALL.probing, outputs=2).init(2, generator=generator())


def answering(*shape: int) -> Answer:
    return lambda probes: torch.zeros(*shape)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: Probing((), 1, 1), r"probe_shape.*\(\)"),
        (lambda: Probing((3, 0), 1, 1), r"probe_shape.*\(3, 0\)"),
        (lambda: Probing((3,), 0, 1), "count.*0"),
        (lambda: Probing((3,), 1, 0), "answer_size.*0"),
        (lambda: Probing((3,), 1, 1, (4, 0)), r"hidden.*\(4, 0\)"),
        (lambda: Probing((3,), 1, 1, outputs=0), "outputs.*0"),
        (lambda: Probing((3,), 1, 1, extra=-1), "extra.*-1"),
        (lambda: Probing((3,), 1, 1, low=2.0, high=1.0), r"low.*high.*2\.0.*1\.0"),
        (lambda: SMALL.probing.split(PHI[:, 1:]), rf"phi.*{PHI.shape[1]}.*{PHI.shape[1] - 1}"),
        (lambda: SMALL.probing.forward(PHI[:, 1:], answering(2, 3, 4, 2)), "phi"),
        (lambda: SMALL.probing.leaves(PHI[..., 0]), "phi"),
        (lambda: SMALL.probing.forward(PHI, answering(2, 3, 4, 3)), r"answer.*4, 2\].*\(2, 3, 4, 3\)"),
        (lambda: SMALL.probing.forward(PHI, answering(2, 3, 5, 2)), r"answer.*4, 2\].*\(2, 3, 5, 2\)"),
        (lambda: SMALL.probing.forward(PHI, answering(2, 3, 2, 4)), r"answer.*4, 2\].*\(2, 3, 2, 4\)"),
        (lambda: SMALL.probing.forward(PHI, answering(3, 4, 2)), r"answer.*\(3, 4, 2\)"),
        (lambda: SMALL.probing.forward(PHI, answering(2, 3, 4, 2), torch.zeros(2, 3, 1)), "inputs.*8.*1"),
        (
            lambda: SMALL.probing.squared_error_gradient(PHI, answering(2, 3, 4, 2), torch.zeros(2, 3, 1)),
            "target.*2, 3",
        ),
        (lambda: SMALL.probing.squared_error_gradient(PHI, answering(2, 3, 4, 2), torch.zeros(3)), r"target.*\(3,\)"),
        (
            lambda: replace(SMALL.probing, outputs=2).squared_error_gradient(
                WIDE, answering(2, 3, 4, 2), torch.zeros(2, 3)
            ),
            r"target.*\(2, 3, 2\).*\(2, 3\)",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)
