"""DT-VINs: equal to plain loops in float64, heads by their formulas, and exact planning with a kernel set by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planner_helpers import MECHANISMS, around, convolve, maps, rng, solver

from mindworks.errors import InputError
from mindworks.planning import DTVIN, DTVINConfig, generate, paper_dt_vin, score
from mindworks.planning.dt_vin import GAINS, HEADS, KERNELS

SIZE = (5, 6)


def build(mechanism: str = "news", depth: int = 3, sharpness: float = 1.0, **config) -> DTVIN:
    """A planner in float64 with nothing at zero: priors and noise together."""
    place = {"height": SIZE[0], "width": SIZE[1]} if config.get("kernel") == "state" else {}
    one = DTVIN(mechanism, depth, DTVINConfig(**{"hidden": 4, **place, **config}), generator=rng()).double()
    with torch.no_grad():
        for parameter in one.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=rng(1), dtype=torch.float64)
        one.sharpness.fill_(sharpness)
    return one


def softmax(scores: np.ndarray) -> np.ndarray:
    shares = np.exp(scores - scores.max())
    return shares / shares.sum()


def kernel_at(one: DTVIN, scores: np.ndarray | None, o: int, a: int, row: int, column: int) -> np.ndarray:
    """The transition kernel of one state and action, `[O, F, F]`."""
    size = one.config.window
    if one.config.kernel == "dynamic":
        raw = scores.reshape(*one.reward.weight.shape[:1], -1, one.taps, *scores.shape[1:])[o, a, :, row, column]
    elif one.config.kernel == "observation":
        raw = scores.mean((1, 2)).reshape(one.reward.weight.shape[0], -1, one.taps)[o, a]
    else:
        cell = (row, column) if one.config.kernel == "state" else (0, 0)
        raw = one.kernel.detach().numpy()[0, o, a, :, cell[0], cell[1]]
    return softmax(float(one.sharpness) * raw).reshape(-1, size, size)


def plain_values(one: DTVIN, inputs: np.ndarray, layers: int) -> np.ndarray:
    """`V'(s) = max_a sum_s' T_a(s, s') (R(s') + V(s'))`, state by state and action by action."""
    reward = plain_reward(one, inputs)
    scores = None if one.transition is None else convolve(inputs, one.transition.weight, one.transition.bias)
    shape = (one.mechanism.orientations, *inputs.shape[1:])
    kernels = {
        (*state, a): kernel_at(one, scores, state[0], a, *state[1:])
        for state in np.ndindex(*shape)
        for a in range(one.mechanism.actions)
    }
    values = np.zeros(shape)
    for _ in range(layers):
        after = np.zeros(shape)
        for o, row, column in np.ndindex(*shape):
            arrived = around(reward + values, row, column, one.config.window)
            after[o, row, column] = max(
                (kernels[o, row, column, a] * arrived).sum() for a in range(one.mechanism.actions)
            )
        values = after
    return values


def plain_reward(one: DTVIN, inputs: np.ndarray) -> np.ndarray:
    return convolve(convolve(inputs, one.hidden.weight, one.hidden.bias), one.reward.weight)


def plain_logits(one: DTVIN, values: np.ndarray, reward: np.ndarray) -> np.ndarray:
    """`[A, O, H, W]` from `values[O, H, W]`, by the formula of each head."""
    out = np.zeros((one.mechanism.actions, *values.shape))
    for o, row, column in np.ndindex(*values.shape):
        near = around(values + (reward if one.config.head == "arrival" else 0), row, column, 3)
        here = near[o, 1, 1]
        for a, (turned, down, right) in enumerate(one.mechanism.moves[o]):
            if one.config.head in GAINS:
                there = near[turned, 1 + down, 1 + right]
                out[a, o, row, column] = np.exp(one.log_gain.item()) * (there - here)
            else:
                taps = one.head[o, a].detach().numpy()
                out[a, o, row, column] = (taps * near).sum()
                if one.config.head == "zero_sum":
                    out[a, o, row, column] -= taps.sum() * here
    return out


CASES = [
    *((m, k, "tied", 3) for m in MECHANISMS for k in KERNELS),
    *((m, "dynamic", head, 3) for m in MECHANISMS for head in ("free", "zero_sum", "arrival")),
    ("news", "dynamic", "free", 5),
    ("diffdrive", "state", "zero_sum", 5),
]


@pytest.mark.parametrize(("mechanism", "kernel", "head", "size"), CASES)
def test_a_forward_pass_is_the_plain_loop(mechanism, kernel, head, size):
    one = build(mechanism, sharpness=1.5, kernel=kernel, head=head, window=size)
    batch = maps(mechanism, size=SIZE).inputs().double()
    logits = one(batch)
    assert logits.shape == (2, one.mechanism.actions, one.mechanism.orientations, *SIZE)
    expected = plain_logits(one, plain_values(one, batch[1].numpy(), 3), plain_reward(one, batch[1].numpy()))
    np.testing.assert_allclose(logits[1].detach().numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_a_kernel_depends_on(kernel):
    one, mazes = build(kernel=kernel), maps(size=SIZE)
    kernels = one.model(mazes.inputs().double()).transition
    per_map, per_cell = kernel in ("dynamic", "observation"), kernel in ("dynamic", "state")
    assert kernels.shape == (2 if per_map else 1, 1, 4, 9, *(SIZE if per_cell else (1, 1)))
    torch.testing.assert_close(kernels.sum(3), torch.ones_like(kernels.sum(3)))
    if per_map:
        assert not torch.allclose(kernels[0], kernels[1])
    if per_cell:
        assert not torch.allclose(kernels[..., 0, 0], kernels[..., 2, 3])


def test_state_kernels_refuse_maps_of_another_size():
    with pytest.raises(InputError, match=r"inputs must have the maps' size \(5, 6\), got .*6.*5"):
        build(kernel="state")(maps(size=(6, 5)).inputs().double())


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_taps_of_a_zero_sum_head_sum_to_zero(mechanism):
    one = build(mechanism, head="zero_sum")
    kernel = one.head_kernel()
    torch.testing.assert_close(kernel.sum((2, 3, 4)), torch.zeros_like(kernel[:, :, 0, 0, 0]), rtol=0, atol=1e-12)
    changed = (kernel - one.head).abs() > 1e-12
    assert (changed.sum((2, 3, 4)) == 1).all()
    for o in range(one.mechanism.orientations):
        assert changed[o, :, o, 1, 1].all()


@pytest.mark.parametrize("head", ["zero_sum", "tied", "arrival"])
def test_a_level_added_to_all_values_leaves_such_heads_alone_inside(head):
    one = build("diffdrive", head=head)
    latent = one.model(maps("diffdrive", size=SIZE).inputs().double())
    values = torch.randn(1, *latent.shape, generator=rng(), dtype=torch.float64)
    low, high = one.read(latent, values), one.read(latent, values + 100)
    torch.testing.assert_close(low[..., 1:-1, 1:-1], high[..., 1:-1, 1:-1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("head", ["free", "zero_sum"])
def test_a_head_starts_with_its_direction_on_the_taps_of_the_moves(head, mechanism):
    one = DTVIN(mechanism, 3, DTVINConfig(head=head, head_direction=2.0), generator=rng())
    bound = 0.1 * (9 * one.mechanism.orientations) ** -0.5
    rest = one.head.detach().clone()
    for o, row in enumerate(one.mechanism.moves):
        for a, (turned, down, right) in enumerate(row):
            rest[o, a, turned, 1 + down, 1 + right] -= 2.0
    assert 0.5 * bound < rest.abs().max() <= bound * (1 + 1e-3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_folding_keeps_the_logits(kernel):
    one = build(sharpness=8.0, kernel=kernel)
    inputs = maps(size=SIZE).inputs().double()
    sharp = one(inputs)
    one.fold()
    assert float(one.sharpness) == 1
    torch.testing.assert_close(one(inputs), sharp, rtol=0, atol=1e-10)
    one.fold()
    torch.testing.assert_close(one(inputs), sharp, rtol=0, atol=1e-10)
    one.sharpness.fill_(8.0)
    assert (one(inputs) - sharp).abs().max() > 1e-3


def test_sharpness_is_saved_but_not_learned():
    one = build(sharpness=8.0)
    assert "sharpness" in one.state_dict()
    assert "sharpness" not in dict(one.named_parameters())


def test_a_dynamic_planner_does_not_care_where_a_map_lies():
    one = build(depth=2)
    small = maps(count=1, size=(4, 4)).inputs().double()
    one.hidden.bias.data.zero_()  # walls outside the map and inside are the same to it then, but for values
    wide = torch.nn.functional.pad(small, (6, 8, 5, 7))
    moved = torch.roll(wide, (1, 2), (2, 3))
    torch.testing.assert_close(
        one(moved)[..., 6:10, 8:12], one(wide)[..., 5:9, 6:10], rtol=0, atol=1e-10, msg="a shift changed the logits"
    )


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("head", HEADS)
def test_every_parameter_has_a_gradient(kernel, head):
    one = build("diffdrive", kernel=kernel, head=head)
    inputs = maps("diffdrive", size=SIZE).inputs().double()
    (one(inputs) ** 2).sum().backward()
    for name, parameter in one.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_published_planner_knows_nothing():
    config = paper_dt_vin(hidden=12)
    one = DTVIN("diffdrive", 3, config, generator=rng())
    for layer in (one.hidden, one.reward, one.transition):
        bound = layer.weight[0].numel() ** -0.5
        for parameter in layer.parameters():
            assert parameter.abs().max() <= bound
            assert parameter.abs().max() > 0.8 * bound
            assert parameter.detach().mean().abs() < 0.35 * bound
    bound = (9 * 4) ** -0.5
    assert 0.9 * bound < one.head.abs().max() <= bound
    assert (config.hidden, config.head, config.kernel) == (12, "free", "dynamic")
    assert paper_dt_vin(kernel="invariant").kernel == "invariant"


@pytest.mark.parametrize("kernel", ["state", "invariant"])
def test_own_kernels_start_with_the_move_bias_and_noise(kernel):
    one = DTVIN(
        "diffdrive", 3, DTVINConfig(kernel=kernel, height=15, width=16, move_bias=5.0, stay_bias=9.0), generator=rng()
    )
    rest = one.kernel.detach().clone().view(4, 3, 4, 3, 3, *one.kernel.shape[-2:])
    for o, row in enumerate(one.mechanism.moves):
        for a, (turned, down, right) in enumerate(row):
            rest[o, a, turned, 1 + down, 1 + right] -= 5.0
    assert rest.std().item() == pytest.approx(0.1, rel=0.15)
    assert rest.abs().max() < 0.7


# Two cells beside a goal can be beside each other where moves are diagonal. All the three have the same value, 2 per
# layer, unless a move may fail; a head that sees the reward too tells them apart.
@pytest.mark.parametrize(
    ("mechanism", "margin", "head"),
    [
        ("news", 40.0, "tied"),
        ("news", 4.0, "tied"),
        ("moore", 4.0, "tied"),
        ("diffdrive", 40.0, "tied"),
        *((mechanism, 40.0, "arrival") for mechanism in MECHANISMS),
    ],
)
def test_the_true_transitions_solve_perfect_mazes_up_to_the_depth_of_the_planner(mechanism, margin, head):
    mazes = generate(6, 11, mechanism=mechanism, decimation=(0.0, 0.0), seed=3)
    one, longest = solver(mechanism, margin=margin, head=head), int(mazes.distances.max())
    found = score(one, mazes, depth=longest)
    assert found.success_rate == found.optimality_rate == 1
    assert found.starts.sum() > 100 * mazes.mechanism.orientations
    depth = longest // 3
    short = score(one, mazes, depth=depth)
    assert torch.equal(short.optimal[: depth + 2], short.starts[: depth + 2])
    assert short.success_rate < 0.9
    assert short.optimality_rate < 0.9


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_values_of_the_true_transitions_are_known(mechanism):
    mazes = generate(3, 9, mechanism=mechanism, seed=3)
    one = solver(mechanism).double()
    steps = mazes.distances
    for n in (1, 7, 30):
        values = one.iterate(one.model(mazes.inputs().double()), n)[0]
        known = n + (n + 1 - steps.clamp_min(1)).clamp_min(0)
        torch.testing.assert_close(values[steps >= 0], known[steps >= 0].double(), rtol=0, atol=1e-4)
        walls = ~mazes.free[:, None].expand_as(steps)
        torch.testing.assert_close(values[walls], torch.zeros_like(values[walls]), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"window": 4}, "window must be odd and at least 3, got 4"),
        ({"window": 1}, "window must be odd and at least 3, got 1"),
        ({"kernel": "fixed"}, "kernel must be one of dynamic, state, observation, invariant, got 'fixed'"),
        ({"head": "linear"}, "head must be one of free, zero_sum, tied, arrival, got 'linear'"),
        ({"kernel": "state", "width": 5}, "height must be at least 1, got 0"),
        ({"kernel": "state", "height": 5}, "width must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused_in_one_line_that_names_them(config, names):
    with pytest.raises(InputError, match=names) as error:
        DTVINConfig(**config)
    assert "\n" not in str(error.value)


def test_the_reward_prior_needs_a_channel_per_orientation():
    with pytest.raises(InputError, match="hidden must be at least 4, got 3"):
        DTVIN("diffdrive", 3, DTVINConfig(hidden=3))
    assert DTVIN("diffdrive", 3, DTVINConfig(hidden=3, reward_prior=False), generator=rng()).config.hidden == 3


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("head", HEADS)
def test_drawing_anew_leaves_nothing_out(kernel, head):
    one = DTVIN("news", 3, DTVINConfig(hidden=4, head=head, kernel=kernel, height=3, width=4), generator=rng())
    kept = {name: value.clone() for name, value in one.state_dict().items()}
    for value in one.state_dict().values():
        value.fill_(9)
    one.reset(rng())
    for name, value in one.state_dict().items():
        assert torch.equal(value, kept[name]), name
