"""N networks at once are N networks one by one; flat vectors keep torch's own order and initialisation."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from mindworks.core.population import MLP, Modules, perturb
from mindworks.errors import InputError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def sequential(sizes: tuple[int, ...], activation: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out, dtype=torch.float64), activation()]
    return nn.Sequential(*layers[:-1])


def one_by_one(network: nn.Sequential, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The reference: load each parameter vector into a torch network, run it on its own inputs."""
    x = x.expand(*theta.shape[:-1], *x.shape[-2:])
    outputs = []
    for vector, inputs in zip(theta.flatten(0, -2), x.flatten(0, -3), strict=True):
        nn.utils.vector_to_parameters(vector, network.parameters())
        outputs.append(network(inputs).detach())
    return torch.stack(outputs).unflatten(0, theta.shape[:-1])


@pytest.mark.parametrize(("name", "activation"), [("tanh", nn.Tanh), ("relu", nn.ReLU)])
@pytest.mark.parametrize("sizes", [(3, 2), (3, 5, 2), (4, 7, 6, 1)], ids=["linear", "one", "two"])
@pytest.mark.parametrize("shape", [(2, 3), (2, 1), (1, 1), ()], ids=["own", "per seed", "ones", "shared"])
def test_many_networks_at_once_equal_a_loop_over_sequentials(sizes, name, activation, shape):
    mlp = MLP(sizes, name)
    theta = normal(2, 3, mlp.num_parameters)
    x = normal(*shape, 4, sizes[0], seed=1)
    expected = one_by_one(sequential(sizes, activation), theta, x)
    torch.testing.assert_close(mlp.forward(theta, x), expected, rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    leading=st.lists(st.integers(1, 3), max_size=2),
    seed=st.integers(0, 1000),
)
def test_flatten_undoes_unflatten_and_keeps_the_order_of_torch(sizes, leading, seed):
    mlp = MLP(tuple(sizes))
    theta = normal(*leading, mlp.num_parameters, seed=seed)
    layers = mlp.unflatten(theta)
    assert [weight.shape[-2:] for weight, _ in layers] == [(b, a) for a, b in pairwise(sizes)]
    assert torch.equal(mlp.flatten(layers), theta)
    one = theta.reshape(-1, mlp.num_parameters)[0]
    network = sequential(mlp.sizes, nn.Tanh)
    with torch.no_grad():
        for linear, (weight, bias) in zip(network[::2], mlp.unflatten(one), strict=True):
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
    assert torch.equal(nn.utils.parameters_to_vector(network.parameters()), one)


@pytest.mark.parametrize("hidden", [(), (5,)], ids=["linear", "deep"])
@pytest.mark.parametrize("shapes", [((2, 4), (2, 4), (2, 4)), ((2, 4), (2, 1), (4,)), ((1, 4), (2, 1), (1, 1))])
def test_several_inputs_equal_their_concatenation_in_value_and_gradient(hidden, shapes):
    mlp = MLP((6, *hidden, 2), "relu")
    theta = normal(2, mlp.num_parameters)
    parts = [normal(*shape, width, seed=i + 1) for i, (shape, width) in enumerate(zip(shapes, (3, 2, 1), strict=True))]
    weights = normal(2, 4, 2, seed=9)

    def run(joined: bool) -> list[torch.Tensor]:
        leaves = [t.clone().requires_grad_(True) for t in (theta, *parts)]
        inputs = leaves[1:]
        if joined:
            inputs = [torch.cat([x.expand(2, 4, x.shape[-1]) for x in inputs], -1)]
        output = mlp.forward(leaves[0], *inputs)
        return [output, *torch.autograd.grad((weights * output).sum(), leaves)]

    for split, whole in zip(run(False), run(True), strict=True):
        torch.testing.assert_close(split, whole, rtol=0, atol=1e-12)


BARE = [(3, 2), (3, 5, 2), (4, 7, 6, 1)]


@pytest.mark.parametrize(("name", "activation"), [("tanh", nn.Tanh), ("relu", nn.ReLU)])
@pytest.mark.parametrize("sizes", BARE, ids=str)
def test_networks_without_biases_equal_a_loop_over_sequentials_without(sizes, name, activation):
    mlp = MLP(sizes, name, bias=False)
    assert mlp.num_parameters == sum(a * b for a, b in pairwise(sizes))
    theta, x = normal(2, 3, mlp.num_parameters), normal(2, 3, 4, sizes[0], seed=1)
    layers = [(nn.Linear(a, b, bias=False, dtype=torch.float64), activation()) for a, b in pairwise(sizes)]
    network = nn.Sequential(*[part for pair in layers for part in pair][:-1])
    expected = one_by_one(network, theta, x)
    torch.testing.assert_close(mlp.forward(theta, x), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(mlp.module(theta[1, 2])(x[1, 2]), expected[1, 2], rtol=0, atol=1e-12)
    assert torch.equal(nn.utils.parameters_to_vector(mlp.module(theta[1, 2]).parameters()), theta[1, 2])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(1, 6), min_size=2, max_size=4), leading=st.lists(st.integers(1, 3), max_size=2))
def test_without_biases_flatten_undoes_unflatten_and_zeros_stand_in(sizes, leading):
    bare, full = MLP(tuple(sizes), bias=False), MLP(tuple(sizes))
    theta = normal(*leading, bare.num_parameters)
    layers = bare.unflatten(theta)
    assert [(w.shape, b.shape) for w, b in layers] == [((*leading, b, a), (*leading, b)) for a, b in pairwise(sizes)]
    assert all((bias == 0).all() for _, bias in layers)
    assert torch.equal(bare.flatten(layers), theta)
    x = normal(4, sizes[0], seed=1)
    torch.testing.assert_close(bare.forward(theta, x), full.forward(full.flatten(layers), x), rtol=0, atol=1e-12)
    assert (bare.forward(theta, torch.zeros(1, sizes[0]).double()) == 0).all()


def test_without_biases_gradients_and_fresh_weights_are_those_of_the_weights_alone():
    bare, full = MLP((6, 5, 2), bias=False), MLP((6, 5, 2))
    theta = bare.init(300, generator=generator(), dtype=torch.float64)
    for weight, _ in bare.unflatten(theta):
        bound = weight.shape[-1] ** -0.5
        assert stats.kstest(weight.flatten().numpy(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
    parts = [normal(300, 4, 4, seed=1), normal(300, 4, 2, seed=2)]  # two inputs stand for their concatenation
    leaf = theta.clone().requires_grad_(True)
    (ours,) = torch.autograd.grad(bare.forward(leaf, *parts).square().sum(), leaf)
    with_zeros = full.flatten(bare.unflatten(theta)).requires_grad_(True)
    (theirs,) = torch.autograd.grad(full.forward(with_zeros, torch.cat(parts, -1)).square().sum(), with_zeros)
    torch.testing.assert_close(ours, bare.flatten(full.unflatten(theirs)), rtol=0, atol=1e-12)


def test_fresh_layers_are_uniform_within_one_over_root_fan_in_as_in_linear():
    mlp = MLP((9, 50, 4, 3))
    theta = mlp.init(60, generator=generator(3), dtype=torch.float64)
    for (fan_in, fan_out), layer in zip(pairwise(mlp.sizes), mlp.unflatten(theta), strict=True):
        bound = fan_in**-0.5
        torch.manual_seed(0)
        reference = [nn.Linear(fan_in, fan_out) for _ in range(60)]
        theirs = (torch.stack([l.weight for l in reference]), torch.stack([l.bias for l in reference]))
        for drawn, linear in zip(layer, theirs, strict=True):
            assert drawn.abs().max() <= bound
            assert drawn.abs().max() > 0.95 * bound
            assert stats.kstest(drawn.flatten().numpy(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
            assert stats.ks_2samp(drawn.flatten().numpy(), linear.detach().flatten().numpy()).pvalue > 1e-3


def test_the_same_generator_seed_gives_the_same_numbers_and_leaves_the_global_one_alone():
    mlp = MLP((3, 4, 2))
    before = torch.get_rng_state()
    first, again, other = (mlp.init(2, generator=generator(s)) for s in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert first.dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_module_is_the_network_and_owns_its_parameters(name):
    mlp = MLP((3, 4, 2), name)
    theta = normal(mlp.num_parameters)
    x = normal(5, 3, seed=1)
    network = mlp.module(theta)
    torch.testing.assert_close(network(x), mlp.forward(theta, x), rtol=0, atol=1e-12)
    assert torch.equal(nn.utils.parameters_to_vector(network.parameters()), theta)
    kept = theta.clone()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert torch.equal(theta, kept)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: MLP((3,)), "sizes"),
        (lambda: MLP((3, 0, 2)), "sizes"),
        (lambda: MLP((3, 2), "sigmoid"), "activation.*'sigmoid'"),
        (lambda: MLP((3, 2)).unflatten(torch.zeros(7)), "theta.*8.*7"),
        (lambda: MLP((3, 2)).forward(torch.zeros(8), torch.zeros(1, 4)), "inputs.*3.*4"),
        (lambda: MLP((3, 2)).forward(torch.zeros(8)), "inputs"),
        (lambda: MLP((3, 2)).module(torch.zeros(2, 8)), "theta"),
        (lambda: Modules(nn.ReLU()), "template"),
        (lambda: Modules(nn.Linear(2, 1)).flatten(nn.Linear(3, 1)), "module"),
        (lambda: Modules(nn.Linear(2, 1)).unflatten(torch.zeros(4)), "theta.*3.*4"),
        (lambda: perturb(torch.zeros(3), 0, 1.0, generator()), "count.*0"),
        (lambda: perturb(torch.zeros(3), 1, -1.0, generator()), "sigma.*-1"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(make, names):
    with pytest.raises(InputError, match=names) as caught:
        make()
    assert "\n" not in str(caught.value)


class Scaled(nn.Module):
    """A small convolutional network with a scalar parameter and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.convolution = nn.Conv2d(1, 2, 3, dtype=torch.float64)
        self.readout = nn.Linear(2 * 9, 4, dtype=torch.float64)
        self.register_buffer("offset", torch.tensor(0.25, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.readout(torch.relu(self.convolution(x) * self.scale + self.offset).flatten(-3))


def test_many_convolutional_networks_at_once_equal_a_loop():
    torch.manual_seed(0)
    networks = [[Scaled() for _ in range(3)] for _ in range(2)]
    family = Modules(Scaled())
    theta = torch.stack([torch.stack([family.flatten(network) for network in row]) for row in networks])
    theta[..., 0] = normal(2, 3)
    x = normal(2, 3, 5, 1, 5, 5, seed=1)
    outputs = family.forward(theta, x)
    for s, row in enumerate(networks):
        for n, network in enumerate(row):
            with torch.no_grad():
                network.scale.copy_(theta[s, n, 0])
            torch.testing.assert_close(outputs[s, n], network(x[s, n]).detach(), rtol=0, atol=1e-12)
            assert torch.equal(family.flatten(network), theta[s, n])
    torch.testing.assert_close(family.forward(theta[1, 2], x[1, 2]), outputs[1, 2], rtol=0, atol=1e-12)


def test_gradients_of_modules_flow_into_every_parameter_vector():
    family = Modules(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double())
    theta = normal(4, family.num_parameters).requires_grad_(True)
    x = normal(4, 6, 2, seed=1)
    twin = MLP((2, 3, 1))
    (ours,) = torch.autograd.grad(family.forward(theta, x).square().sum(), theta)
    (expected,) = torch.autograd.grad(twin.forward(theta, x).square().sum(), theta)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_module_vectors_do_not_share_memory_with_their_module():
    template = nn.Linear(2, 1)
    vector = Modules(template).flatten(template)
    kept = vector.clone()
    with torch.no_grad():
        template.weight.add_(1)
    assert torch.equal(vector, kept)
    assert not vector.requires_grad


def test_neighbours_have_the_mean_and_the_independent_noise_they_are_asked_for():
    centre = normal(2, 3)
    count, sigma = 20_000, 0.5
    noise = (perturb(centre, count, sigma, generator(4)) - centre.unsqueeze(-2)) / sigma
    assert noise.shape == (2, count, 3)
    assert noise.mean(1).abs().max() < 5 / count**0.5
    flat = noise.transpose(0, 1).reshape(count, 6)  # six coordinates that must not know of each other
    covariance = flat.T @ flat / count
    assert (covariance - torch.eye(6, dtype=torch.float64)).abs().max() < 5 * (2 / count) ** 0.5
    assert stats.kstest(flat.flatten().numpy()[::7], "norm").pvalue > 1e-3


def test_no_noise_gives_copies_and_a_seed_gives_its_own_neighbours():
    centre = normal(2, 3)
    assert torch.equal(perturb(centre, 4, 0.0, generator()), centre.unsqueeze(1).expand(2, 4, 3))
    assert torch.equal(perturb(centre, 4, 1.0, generator(1)), perturb(centre, 4, 1.0, generator(1)))
    assert perturb(centre.float(), 4, 1.0, generator()).dtype == torch.float32
