"""Residual, dense and highway connections around blocks of layers, by their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from planner_helpers import MECHANISMS, maps, rng

from mindworks.errors import InputError
from mindworks.planning import VIN, ConnectedVIN, VINConfig
from mindworks.planning.connected_vin import CONNECTIONS

CONFIG = VINConfig(hidden=5, latent_actions=6)


def build(connection: str, mechanism: str = "news", depth: int = 9, block: int = 3) -> ConnectedVIN:
    one = ConnectedVIN(mechanism, depth, CONFIG, connection=connection, block=block, generator=rng()).double()
    with torch.no_grad():
        for parameter in one.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=rng(1), dtype=torch.float64)
    return one


def layer(one: VIN, inputs: torch.Tensor):
    """One layer of the VIN, `V[B, O, H, W]` to `V'`, and Q of the rewards alone, `[B, O * L, H, W]`."""
    orientations, latent = one.mechanism.orientations, CONFIG.latent_actions
    shape = (orientations * latent, orientations, 3, 3)
    reward = one.reward(one.hidden(inputs))
    paid = torch.nn.functional.conv2d(reward, one.reward_kernel.reshape(shape), padding=1)

    def step(values: torch.Tensor) -> torch.Tensor:
        q = paid + torch.nn.functional.conv2d(values, one.value_kernel.reshape(shape), padding=1)
        return q.unflatten(1, (orientations, latent)).amax(2)

    return step, paid, torch.zeros_like(reward)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("connection", CONNECTIONS)
def test_values_are_those_of_the_formula(connection, mechanism):
    one = build(connection, mechanism)
    inputs = maps(mechanism).inputs().double()
    step, paid, values = layer(one, inputs)
    outputs = [values]
    for number in range(3):
        start = outputs[-1]
        if connection == "dense" and number:
            shares = [math.exp(one.mixture[number, i].item()) for i in range(number + 1)]
            start = sum(s * v for s, v in zip(shares, outputs, strict=True)) / sum(shares)
        through = step(step(step(start)))
        if connection == "residual":
            outputs.append((start + through) / 2)
        elif connection == "dense":
            outputs.append(through)
        else:
            weight = one.gate.weight[:, :, 0, 0]
            gate = torch.einsum("oc,bchw->bohw", weight, paid) + one.gate.bias.view(1, -1, 1, 1)
            gate = 1 / (1 + (-gate).exp())
            outputs.append(gate * through + (1 - gate) * start)
    found = one.iterate(one.model(inputs), 9, keep=[3, 6, 9])
    torch.testing.assert_close(found, torch.stack(outputs[1:]), rtol=0, atol=1e-10)
    if connection != "dense":
        on = one.iterate(one.model(inputs), 6, initial=outputs[1])[0]
        torch.testing.assert_close(on, outputs[3], rtol=0, atol=1e-10)


def test_connections_start_mostly_open():
    dense = ConnectedVIN("news", 9, CONFIG, connection="dense", block=3, generator=rng())
    values = [torch.full((1, 1, 2, 2), number) for number in (1.0, 10.0)]
    share = math.exp(3) / (1 + math.exp(3))
    torch.testing.assert_close(dense._enter(values), torch.full((1, 1, 2, 2), share * 10 + 1 - share))
    highway = ConnectedVIN("news", 9, CONFIG, connection="highway", block=3, generator=rng())
    latent = highway.model(maps().inputs())
    zeros = torch.zeros(latent.shape)
    gate = 1 / (1 + math.exp(-2))
    torch.testing.assert_close(highway._leave(latent, zeros, zeros + 1), zeros + gate)


def test_the_parameters_of_the_vin_inside_are_those_of_a_plain_one():
    plain = VIN("news", 9, CONFIG, generator=rng()).state_dict()
    for connection in CONNECTIONS:
        found = ConnectedVIN("news", 9, CONFIG, connection=connection, block=3, generator=rng()).state_dict()
        for name in plain.keys() - {"policy.weight"}:
            assert torch.equal(found[name], plain[name]), (connection, name)


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_gradients_reach_the_connection_and_the_kernels(connection):
    one = build(connection)
    (one(maps().inputs().double()) ** 2).sum().backward()
    for name, parameter in one.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    if connection == "dense":
        assert (one.mixture.grad[1:].abs().amax(1) > 0).all()


def test_dense_connections_have_a_row_for_every_block():
    assert build("dense").mixture.shape == (3, 3)
    assert ConnectedVIN("news", 12, CONFIG, connection="dense", block=12).mixture.shape == (1, 1)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: build("skip"), "connection must be one of residual, dense, highway, got 'skip'"),
        (lambda: build("residual", block=0), "block must be at least 1, got 0"),
        (lambda: build("residual", depth=10), "depth must be a multiple of block 3, got 10"),
        (lambda: build("residual")(maps().inputs().double(), depth=7), "depth must be a multiple of block 3, got 7"),
        (
            lambda: build("residual").logits(maps().inputs().double(), keep=[3, 4]),
            r"keep must hold multiples of block 3, got \[4\]",
        ),
        (lambda: build("dense")(maps().inputs().double(), depth=12), "depth must be at most 9 with dense connections"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(call, names):
    with pytest.raises(InputError, match=names):
        call()


@pytest.mark.parametrize("seed", range(8))
def test_dense_plans_take_the_actions_of_the_full_pass(seed):
    one, mazes = build("dense"), maps(count=1, seed=seed)
    one.mixture.data.normal_(generator=rng(seed))
    plan = one.plan(mazes.free[0], mazes.goal[0], chunk=3)
    assert torch.equal(plan.actions, one.act(mazes.inputs().double())[0])


@pytest.mark.parametrize("connection", ["residual", "highway"])
def test_such_planners_may_go_deeper_than_they_were_made(connection):
    one, inputs = build(connection), maps().inputs().double()
    deep = build(connection, depth=18)
    deep.load_state_dict(one.state_dict())
    assert torch.equal(one(inputs, depth=18), deep(inputs))
