"""Highway VINs: value exploration, filter gate and aggregate gate, each by its formula and without it."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from planner_helpers import MECHANISMS, maps, rng
from torch import Tensor

from mindworks.errors import InputError
from mindworks.planning import VIN, HighwayVIN, VINConfig
from mindworks.planning.value_iteration import q_values

CONFIG = VINConfig(hidden=5, latent_actions=3)


def build(mechanism: str = "news", depth: int = 6, block: int = 3, noise: float = 0.2, **settings) -> HighwayVIN:
    one = HighwayVIN(mechanism, depth, CONFIG, block=block, generator=rng(), **settings).double()
    with torch.no_grad():
        for parameter in one.parameters():
            parameter += noise * torch.randn(parameter.shape, generator=rng(1), dtype=torch.float64)
    return one


def parts(one: HighwayVIN, mechanism: str = "news", seed: int = 3) -> tuple[Tensor, Tensor]:
    """Values that a block starts from, and the layers of its chains."""
    latent = one.model(maps(mechanism).inputs().double())
    values = torch.randn(latent.shape, generator=rng(2), dtype=torch.float64)
    return values, one.explored(latent, values, rng(seed))


def follow(one: HighwayVIN, values: Tensor, choices: list[Tensor | None], mechanism: str = "news") -> list[Tensor]:
    """Layers after `values` in which the actions `choices` are taken, the best where there are none."""
    latent, found = one.model(maps(mechanism).inputs().double()), []
    for choice in choices:
        q = q_values(latent.transition, None, values, bias=latent.bias)
        best, action = q.max(2)
        if choice is None:
            values = best
        else:
            action = torch.where(choice < 0, action, choice.long())
            values = q.gather(2, action[:, :, None])[:, :, 0]
        found.append(values)
    return found


def numbers(one: HighwayVIN, seed: int | None = 0) -> Tensor:
    generator = None if seed is None else rng(seed)
    return one.logits(maps().inputs().double(), generator=generator)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_chains_follow_the_drawn_actions_after_one_greedy_layer(mechanism):
    one = build(mechanism, chains=2, epsilon=0.5)
    values, layers = parts(one, mechanism)
    assert layers.shape == (3, 2, *values.shape)
    drawn = one._actions(3, (2, *values.shape), rng(3), False).unflatten(1, (2, 2))
    assert (drawn[0] == -1).all()
    assert (drawn[1:] >= 0).any()
    for chain in range(2):
        expected = follow(one, values, list(drawn[:, chain]), mechanism)
        torch.testing.assert_close(layers[:, chain], torch.stack(expected), rtol=0, atol=1e-11)
        assert torch.equal(layers[0, chain], layers[0, 0])


@pytest.mark.parametrize(("epsilon", "low", "high"), [(1.0, 0.0, 0.0), (0.3, 0.67, 0.73)])
def test_actions_are_drawn_evenly_and_as_often_as_epsilon_says(epsilon, low, high):
    one = build(depth=11, block=11, epsilon=epsilon, chains=4)
    drawn = one._actions(3, (4, 5, 1, 10, 10), rng(), False)
    assert (drawn.dtype, drawn.shape) == (torch.int8, (11, 20, 1, 10, 10))
    drawn = drawn[1:]
    greedy = (drawn < 0).double().mean().item()
    assert low <= greedy <= high
    shares = torch.bincount(drawn[drawn >= 0].long(), minlength=3) / (drawn >= 0).sum()
    assert len(shares) == 3
    assert (shares - 1 / 3).abs().max() < 0.015


def test_without_a_generator_all_maps_are_given_the_same_actions():
    one = build(epsilon=0.5)
    drawn = one._actions(3, (2, 4, 1, 5, 6), rng(), True).unflatten(1, (2, 4))
    assert torch.equal(drawn, drawn[:, :, :1].expand_as(drawn))
    assert not torch.equal(drawn[:, 0], drawn[:, 1])
    apart = one._actions(3, (2, 4, 1, 5, 6), rng(), False).unflatten(1, (2, 4))
    assert not torch.equal(apart[:, :, 0], apart[:, :, 1])
    alone = (one._actions(3, (2, 1, 1, 5, 6), rng(), shared) for shared in (True, False))
    assert torch.equal(*alone)


@pytest.mark.parametrize("settings", [{"explore": False}, {"epsilon": 0.0}])
def test_without_exploration_chains_are_greedy_and_nothing_is_drawn(settings):
    one = build(chains=3, **settings)
    values, layers = parts(one)
    greedy = torch.stack(follow(one, values, [None] * 3))
    torch.testing.assert_close(layers, greedy[:, None], rtol=0, atol=1e-11)
    generator = rng()
    before = generator.get_state()
    one.logits(maps().inputs().double(), generator=generator)
    assert torch.equal(generator.get_state(), before)
    assert one.chains == 1


def test_by_default_a_tenth_of_the_actions_is_drawn():
    one = HighwayVIN("news", 10, CONFIG, generator=rng())
    assert (one.block, one.chains, one.epsilon) == (10, 3, 0.1)
    drawn = one._actions(3, (3, 10, 1, 10, 10), rng(), False)[1:]
    assert (drawn >= 0).double().mean().item() == pytest.approx(0.1, abs=0.01)


def test_the_filter_gate_keeps_chains_at_or_above_the_first_layer():
    one = build(epsilon=0.5)
    one.log_sharp.data.fill_(-30.0)  # an even average, which shows every part
    _, layers = parts(one)
    first, rest = layers[0, 0], layers[1:]
    assert (rest < first).any()
    filtered = one.gates(layers)
    assert (filtered >= first - 1e-12).all()
    expected = (first + torch.maximum(rest, first).sum((0, 1))) / (1 + 2 * 3)
    torch.testing.assert_close(filtered, expected, rtol=0, atol=1e-9)
    one.filter_gate = False
    plain = one.gates(layers)
    torch.testing.assert_close(plain, (first + rest.sum((0, 1))) / 7, rtol=0, atol=1e-9)
    assert (plain < first - 1e-3).any()


def test_the_aggregate_gate_is_a_softmax_average_over_all_layers_of_all_chains():
    one = build(filter_gate=False, epsilon=0.5)
    one.log_sharp.data.fill_(0.7)
    _, layers = parts(one)
    every = [layers[0, 0], *(layers[m, p] for m, p in product((1, 2), range(3)))]
    weights = [(torch.tensor(0.7, dtype=torch.float64).exp() * value).exp() for value in every]
    expected = sum(w * v for w, v in zip(weights, every, strict=True)) / sum(weights)
    torch.testing.assert_close(one.gates(layers), expected, rtol=0, atol=1e-11)
    one.aggregate_gate = False
    assert torch.equal(one.gates(layers), torch.maximum(layers[2, 0], layers[2, 1]).maximum(layers[2, 2]))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_with_a_large_sharpness_a_block_is_the_maximum_over_depths_and_policies(mechanism):
    one = build(mechanism, noise=0.1)
    one.log_sharp.data.fill_(14.0)
    _, layers = parts(one, mechanism)
    torch.testing.assert_close(one.gates(layers), layers.amax((0, 1)), rtol=0, atol=1e-5)


def test_without_gates_and_exploration_it_is_a_plain_vin():
    one = build(explore=False, filter_gate=False, aggregate_gate=False)
    plain = VIN("news", 6, CONFIG).double()
    plain.load_state_dict({k: v for k, v in one.state_dict().items() if k != "log_sharp"})
    torch.testing.assert_close(numbers(one)[-1], plain(maps().inputs().double()), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    "switch", [{"explore": False}, {"filter_gate": False}, {"aggregate_gate": False}, {"epsilon": 0.5}, {"chains": 2}]
)
def test_every_switch_changes_the_numbers(switch):
    assert (numbers(build()) - numbers(build(**switch))).abs().max() > 1e-3


def test_the_same_generator_gives_the_same_numbers():
    one = build()
    assert torch.equal(numbers(one, 5), numbers(one, 5))
    assert not torch.equal(numbers(one, 5), numbers(one, 6))
    state = torch.get_rng_state()
    numbers(one, 5)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_generator_every_call_draws_the_same_and_leaves_global_randomness_alone():
    one = build()
    state = torch.get_rng_state()
    first = numbers(one, None)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(numbers(one, None), first)
    assert torch.equal(one(maps().inputs().double()), first[-1])
    greedy = build(explore=False)
    assert (numbers(greedy, None) - first).abs().max() > 1e-3


def test_a_policy_explores_as_in_training():
    one = build()
    training = numbers(one, 5)
    assert torch.equal(numbers(one.eval(), 5), training)


def test_blocks_follow_each_other_and_draw_from_one_generator():
    one = build(depth=9)
    latent = one.model(maps().inputs().double())
    whole = one.iterate(latent, 9, keep=[3, 6, 9], generator=rng(4))
    values, generator = torch.zeros(latent.shape, dtype=torch.float64), rng(4)
    for found in whole:
        values = one.gates(one.explored(latent, values, generator))
        torch.testing.assert_close(found, values, rtol=0, atol=1e-12)
    generator = rng(4)
    before = one.iterate(latent, 6, generator=generator)[0]
    torch.testing.assert_close(before, whole[1], rtol=0, atol=1e-12)
    after = one.iterate(latent, 3, initial=before, generator=generator)[0]
    torch.testing.assert_close(after, whole[2], rtol=0, atol=1e-12)


def test_gradients_reach_every_parameter_and_the_start_of_a_deep_network():
    one = build(depth=60, block=20)
    latent = one.model(maps().inputs().double())
    start = torch.zeros(latent.shape, dtype=torch.float64, requires_grad=True)
    values = one.iterate(latent, 60, initial=start, generator=rng())
    values.sum().backward(retain_graph=True)
    assert start.grad.abs().max() > 0
    (one.read(latent, values) ** 2).sum().backward()
    for name, parameter in one.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_a_path_past_the_chains_carries_more_gradient_than_a_plain_vin_does():
    """Kernels that shrink values lose the gradient within a block; the path from the first layer keeps it."""

    def reach(**settings) -> float:
        one = build(depth=60, block=20, noise=0.0, **settings)
        one.value_kernel.data.mul_(0.2)
        latent = one.model(maps().inputs().double())
        start = torch.zeros(latent.shape, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(one.iterate(latent, 60, initial=start, generator=rng()).sum(), start)
        return float(gradient.norm())

    plain = reach(explore=False, filter_gate=False, aggregate_gate=False)
    assert reach() > 1e6 * plain


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: build(block=1), "block must be at least 2, got 1"),
        (lambda: build(depth=7), "depth must be a multiple of block 3, got 7"),
        (lambda: build(chains=0), "chains must be at least 1, got 0"),
        (
            lambda: HighwayVIN("news", 10, VINConfig(latent_actions=128)),
            "latent_actions must be at most 127, got 128",
        ),
        (lambda: build(epsilon=1.1), r"epsilon must be in \[0, 1\], got 1.1"),
        (lambda: build(epsilon=-0.1), r"epsilon must be in \[0, 1\], got -0.1"),
        (lambda: build()(maps().inputs().double(), depth=4), "depth must be a multiple of block 3, got 4"),
        (
            lambda: build().logits(maps().inputs().double(), keep=[2, 3]),
            r"keep must hold multiples of block 3, got \[2\]",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(call, names):
    with pytest.raises(InputError, match=names):
        call()


def test_as_many_latent_actions_as_a_byte_holds_are_drawn():
    one = HighwayVIN("news", 2, VINConfig(hidden=2, latent_actions=127), block=2, epsilon=1.0, generator=rng())
    drawn = one._actions(127, (3, 4, 1, 20, 20), rng(), False)
    assert (int(drawn.min()), int(drawn.max())) == (-1, 126)
    assert one(maps().inputs()).isfinite().all()
