"""VINs: equal to the published network, with kernels and logits of their own where the settings say so."""

from __future__ import annotations

import pytest
import torch
from planner_helpers import MECHANISMS, maps, rng
from torch.nn import functional as F

from mindworks.errors import InputError
from mindworks.planning import VIN, VINConfig, informed_vin
from mindworks.planning.vin import STARTS


def build(mechanism: str = "news", depth: int = 4, sharpness: float = 1.0, **config) -> VIN:
    one = VIN(mechanism, depth, VINConfig(**{"hidden": 5, "latent_actions": 9, **config}), generator=rng()).double()
    with torch.no_grad():
        for parameter in one.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng(1), dtype=torch.float64)
    one.sharpness.fill_(sharpness)
    return one


def published(one: VIN, inputs: torch.Tensor, depth: int) -> torch.Tensor:
    """The network of Lee et al.'s code: rewards and values through one convolution, and a last Q for the policy."""
    orientations, latent, size = one.mechanism.orientations, one.config.latent_actions, one.config.window
    batch, _, height, width = inputs.shape
    kernels = [one.reward_kernel[0, ..., 0, 0], one.value_kernel[0, ..., 0, 0]]
    if one.config.softmax:
        kernels = [(one.sharpness * kernel).softmax(-1) for kernel in kernels]
    q_weight, w = (kernel.reshape(orientations * latent, orientations, size, size) for kernel in kernels)
    h = F.conv2d(inputs, one.hidden.weight, one.hidden.bias, padding=1)
    r = F.conv2d(h, one.reward.weight)

    def best(q: torch.Tensor) -> torch.Tensor:
        return q.view(batch, orientations, latent, height, width).max(2)[0]

    v = best(F.conv2d(r, q_weight, padding=size // 2))
    for _ in range(depth - 1):
        v = best(F.conv2d(torch.cat([r, v], 1), torch.cat([q_weight, w], 1), padding=size // 2))
    q = F.conv2d(torch.cat([r, v], 1), torch.cat([q_weight, w], 1), padding=size // 2)
    if one.config.tied:
        heads = q.view(batch, orientations, latent, height, width)[:, :, : one.mechanism.actions]
        return one.log_gain.exp() * heads.transpose(1, 2)
    logits = F.conv2d(q, one.policy.weight)
    return logits.view(batch, orientations, one.mechanism.actions, height, width).transpose(1, 2)


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("config", [{}, {"window": 5}, {"softmax": True, "sharpness": 3.0}, {"tied": True}])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_forward_pass_is_the_published_one(mechanism, config, depth):
    one = build(mechanism, **config)
    inputs = maps(mechanism).inputs().double()
    torch.testing.assert_close(one(inputs, depth=depth), published(one, inputs, depth), rtol=0, atol=1e-11)


def test_kernels_start_as_their_settings_say():
    zero, normal = (VIN("diffdrive", 3, VINConfig(start=start), generator=rng()) for start in ("zero", "normal"))
    assert (zero.value_kernel == 0).all()
    assert torch.equal(zero.reward_kernel, normal.reward_kernel)
    assert torch.equal(zero.policy.weight, normal.policy.weight)
    assert normal.value_kernel.std().item() == pytest.approx(0.1, rel=0.15)
    bound = (4 * 9) ** -0.5
    assert 0.9 * bound < normal.reward_kernel.abs().max() <= bound
    for layer, fan_in in ((normal.hidden, 45), (normal.reward, 40), (normal.policy, 40)):
        assert 0.9 * fan_in**-0.5 < layer.weight.abs().max() <= fan_in**-0.5
    assert normal.hidden.bias.abs().max() <= 45**-0.5


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_latent_actions_start_as_the_real_moves(mechanism, tied):
    one = VIN(mechanism, 3, VINConfig(start="moves", tied=tied, latent_actions=9), generator=rng())
    orientations, actions = one.mechanism.orientations, one.mechanism.actions
    for kernel in (one.reward_kernel, one.value_kernel):
        rest = kernel.detach().clone().view(orientations, 9, orientations, 3, 3)
        for o, row in enumerate(one.mechanism.moves):
            for a, (turned, down, right) in enumerate(row):
                rest[o, a, turned, 1 + down, 1 + right] -= 1
        assert rest.std().item() == pytest.approx(0.05, rel=0.2)
        assert rest.abs().max() < 0.3
    if not tied:
        weight = one.policy.weight.view(orientations, actions, orientations, 9)
        for o in range(orientations):
            for a in range(actions):
                assert weight[o, a].flatten().argmax() == o * 9 + a
                assert weight[o, a, o, a] > 0.9


def test_an_informed_vin_holds_all_priors():
    assert informed_vin() == VINConfig(start="moves", softmax=False, tied=True, reward_prior=True)
    assert informed_vin(softmax=True).softmax


@pytest.mark.parametrize("softmax", [False, True])
def test_folding_keeps_the_logits(softmax):
    one = build(softmax=softmax, sharpness=8.0)
    inputs = maps().inputs().double()
    sharp = one(inputs)
    one.fold()
    assert float(one.sharpness) == 1
    torch.testing.assert_close(one(inputs), sharp, rtol=0, atol=1e-10)
    one.sharpness.fill_(8.0)
    assert torch.allclose(one(inputs), sharp) != softmax


@pytest.mark.parametrize("config", [{"tied": True}, {"start": "moves"}, {"start": "zero"}, {"reward_prior": True}])
def test_drawing_anew_leaves_nothing_out(config):
    one = VIN("diffdrive", 3, VINConfig(hidden=5, **config), generator=rng())
    kept = {name: value.clone() for name, value in one.state_dict().items()}
    for value in one.state_dict().values():
        value.fill_(9)
    one.reset(rng())
    for name, value in one.state_dict().items():
        assert torch.equal(value, kept[name]), name


def test_only_kernels_that_are_a_softmax_sharpen():
    assert VIN("news", 3, informed_vin(softmax=True)).sharpens
    assert not VIN("news", 3, informed_vin()).sharpens


@pytest.mark.parametrize("config", [{}, {"softmax": True}, {"tied": True}, {"start": "moves"}])
def test_every_parameter_has_a_gradient(config):
    one = build("diffdrive", **config)
    (one(maps("diffdrive").inputs().double()) ** 2).sum().backward()
    for name, parameter in one.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: VINConfig(hidden=0), "hidden must be at least 1, got 0"),
        (lambda: VINConfig(latent_actions=0), "latent_actions must be at least 1, got 0"),
        (lambda: VINConfig(window=2), "window must be odd and at least 3, got 2"),
        (lambda: VINConfig(window=1), "window must be odd and at least 3, got 1"),
        (lambda: VINConfig(start="ones"), f"start must be one of {', '.join(STARTS)}, got 'ones'"),
        (lambda: build("diffdrive", hidden=3, reward_prior=True), "hidden must be at least 4, got 3"),
        (lambda: build("moore", latent_actions=7, tied=True), "latent_actions must be at least 8, got 7"),
        (lambda: build("moore", latent_actions=7, start="moves"), "latent_actions must be at least 8, got 7"),
    ],
)
def test_bad_settings_are_refused_in_one_line_that_names_them(call, names):
    with pytest.raises(InputError, match=names):
        call()
    assert build("moore", latent_actions=7).config.latent_actions == 7
