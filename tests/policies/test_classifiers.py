"""The parts of the value of a classifier against torch's own modules and hand-made cases, and the whole in small."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from mindworks.core.population import MLP
from mindworks.core.probing import Probing
from mindworks.errors import InputError
from mindworks.policies.accuracy_critics import FixedCritic, Measured, ProbingCritic, probabilities
from mindworks.policies.classifiers import (
    CRITICS,
    ClassifierConfig,
    climb,
    fit,
    make_critic,
    spearman,
    value_of_classifiers,
)
from mindworks.policies.convnet import ConvNet
from mindworks.policies.snapshots import (
    Trainings,
    accuracy,
    add_noise,
    confusion,
    cross_entropy_gradient,
    geometric_steps,
    random_orders,
)
from mindworks.policies.streams import Streams

SHAPES = [
    ConvNet((1, 8, 8), (8,), 4, 2),
    ConvNet((2, 9, 7), (3, 4), 3, 1, (5,), 6, "tanh"),
    ConvNet((3, 7, 11), (4, 2), 2, 2, (), 3),
]
TINY = ConvNet((1, 5, 5), (2,), 3, 2, (), 3)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(net: ConvNet, *leading: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*leading, *net.image, generator=_generator(seed), dtype=torch.float64)


# -- networks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", SHAPES, ids=str)
@pytest.mark.parametrize("shared", ["none", "population", "seed", "all"])
def test_every_network_answers_as_torch_modules_do(net: ConvNet, shared: str) -> None:
    theta = net.init(2, 3, generator=_generator(), dtype=torch.float64)
    lead = {"none": (2, 3), "population": (2, 1), "seed": (1, 3), "all": ()}[shared]
    images = _images(net, *lead, 5)
    logits = net.forward(theta, images)
    assert logits.shape == (2, 3, 5, net.classes)
    each = images.expand(2, 3, *images.shape[-4:])
    for s in range(2):
        for n in range(3):
            expected = net.module(theta[s, n])(each[s, n])
            torch.testing.assert_close(logits[s, n], expected, rtol=0, atol=1e-13)
            alone = net.forward(theta[s, n], each[s, n])
            torch.testing.assert_close(alone, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("net", SHAPES, ids=str)
def test_gradients_equal_those_of_torch_modules(net: ConvNet) -> None:
    theta = net.init(2, 1, generator=_generator(), dtype=torch.float64)
    images, labels = _images(net, 2, 1, 4), torch.randint(net.classes, (2, 1, 4), generator=_generator())
    gradient = cross_entropy_gradient(net, theta, images, labels)
    pixels = images.clone().requires_grad_()
    (in_pixels,) = torch.autograd.grad(net.forward(theta, pixels).square().sum(), pixels)
    for s in range(2):
        module = net.module(theta[s, 0])
        functional.cross_entropy(module(images[s, 0]), labels[s, 0]).backward()
        expected = nn.utils.parameters_to_vector([parameter.grad for parameter in module.parameters()])
        torch.testing.assert_close(gradient[s, 0], expected, rtol=0, atol=1e-13)
        one = images[s, 0].clone().requires_grad_()
        (expected,) = torch.autograd.grad(module(one).square().sum(), one)
        torch.testing.assert_close(in_pixels[s, 0], expected, rtol=0, atol=1e-13)


def test_init_has_the_bounds_of_torch_layers() -> None:
    net = ConvNet((2, 6, 6), (4,), 3, 1, (50,), 10)
    layers = net.unflatten(net.init(200, generator=_generator()))
    for (weight, bias), fan_in in zip(layers, (18, 64, 50), strict=True):
        for part in (weight, bias):
            assert 0.98 * fan_in**-0.5 < part.abs().max() <= fan_in**-0.5


def test_flatten_inverts_unflatten_and_counts_the_parameters() -> None:
    for net in SHAPES:
        theta = net.init(2, 3, generator=_generator())
        assert torch.equal(net.flatten(net.unflatten(theta)), theta)
        assert sum(p.numel() for p in net.module(theta[0, 0]).parameters()) == net.num_parameters
    assert SHAPES[0].num_parameters == 8 * 16 + 8 + 72 * 10 + 10


def test_reorder_exchanges_outputs_and_nothing_else() -> None:
    net = SHAPES[1]
    theta, images = net.init(2, generator=_generator(), dtype=torch.float64), _images(net, 4)
    order = torch.tensor([[1, 0, 2, 3, 5, 4], [0, 1, 2, 3, 4, 5]])
    logits, moved = net.forward(theta, images), net.forward(net.reorder(theta, order), images)
    torch.testing.assert_close(moved[0], logits[0][:, order[0]], rtol=0, atol=1e-13)
    assert torch.equal(net.reorder(theta, order)[1], theta[1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((1, 8),), "image must be"),
        (((0, 8, 8),), "image must be"),
        (((1, 8, 8), ()), "channels must be"),
        (((1, 8, 8), (4, 0)), "channels must be"),
        (((1, 8, 8), (4,), 0), "kernel must be at least 1, got 0"),
        (((1, 8, 8), (4,), 3, 0), "stride must be at least 1, got 0"),
        (((1, 8, 8), (4, 4, 4, 4), 3), "image must be large enough for 4 convolutions"),
        (((1, 8, 2), (4,), 3), "image must be large enough"),
        (((1, 8, 8), (4,), 3, 1, (0,)), "sizes must be positive"),
        (((1, 8, 8), (4,), 3, 1, (), 10, "sine"), "activation must be one of"),
    ],
)
def test_bad_shapes_are_refused(arguments: tuple, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ConvNet(*arguments)


def test_inputs_of_other_shapes_are_refused() -> None:
    theta = TINY.init(2, generator=_generator())
    with pytest.raises(InputError, match="theta must end in"):
        TINY.forward(theta[:, 1:], torch.zeros(4, 1, 5, 5))
    with pytest.raises(InputError, match="images must end in B and"):
        TINY.forward(theta, torch.zeros(4, 1, 5, 6))
    with pytest.raises(InputError, match="images must end in B and"):
        TINY.forward(theta, torch.zeros(1, 5, 5))
    with pytest.raises(InputError, match="theta must be one vector"):
        TINY.module(theta)


# -- populations -------------------------------------------------------------------------------------------------------


def test_training_side_by_side_is_torch_adam_one_by_one() -> None:
    trainings = Trainings(batch=4, rates=(1e-2, 1e-1), least_images=3)
    images, labels = _images(TINY, 12).float(), torch.randint(3, (12,), generator=_generator())
    seen: list[list[torch.Tensor]] = [[], []]

    class Watched(ConvNet):
        def apply(self, layers, batch):
            for n in range(2):
                seen[n].append(batch[0, n].clone())
            return super().apply(layers, batch)

    watched = Watched(*(getattr(TINY, name) for name in ("image", "channels", "kernel", "stride", "hidden", "classes")))
    kept = trainings.run(watched, images, labels, Streams([3]), 2, [0, 1, 5]).unflatten(1, (3, 2))[0]
    for n in range(2):
        module = TINY.module(kept[0, n])
        rate = (kept[1, n] - kept[0, n]).abs().max().item()  # Adam's first step is the step size
        assert 1e-2 * 0.999 < rate < 1e-1 * 1.001
        adam = torch.optim.Adam(module.parameters(), rate, (0.9, 0.99))
        for batch in seen[n][:5]:
            rows = [int((images == image).flatten(1).all(1).nonzero()) for image in batch]
            adam.zero_grad()
            functional.cross_entropy(module(batch), labels[rows]).backward()
            adam.step()
        torch.testing.assert_close(kept[2, n], nn.utils.parameters_to_vector(module.parameters()), rtol=0, atol=2e-4)
    # the first network of each seed sees all images, the second a fixed part of them
    assert len(torch.cat(seen[0]).unique(dim=0)) > len(torch.cat(seen[1]).unique(dim=0))


def test_a_seed_draws_the_same_whoever_runs_beside_it() -> None:
    trainings = Trainings(batch=4, rates=(1e-2, 1e-1), least_images=3)
    images, labels = _images(TINY, 12).float(), torch.randint(3, (12,), generator=_generator())
    together = trainings.run(TINY, images, labels, Streams([1, 3]), 2, [0, 4])
    alone = trainings.run(TINY, images, labels, Streams([3]), 2, [0, 4])
    torch.testing.assert_close(together[1], alone[0], rtol=0, atol=1e-4)
    assert (together[0] - alone[0]).abs().max() > 0.1


def test_confusion_counts_what_a_loop_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    theta = TINY.init(2, 3, generator=_generator(), dtype=torch.float64)
    images, labels = _images(TINY, 40), torch.randint(3, (40,), generator=_generator())
    expected = torch.zeros(2, 3, 3, 3)
    for s in range(2):
        for n in range(3):
            for image, label in zip(images, labels, strict=True):
                expected[s, n, label, TINY.module(theta[s, n])(image[None]).argmax()] += 1 / 40
    found = confusion(TINY, theta, images, labels)
    torch.testing.assert_close(found, expected)
    monkeypatch.setattr("mindworks.policies.snapshots._NUMBERS_AT_ONCE", 1)  # one network at a time
    assert torch.equal(confusion(TINY, theta, images, labels), found)
    torch.testing.assert_close(accuracy(TINY, theta, images, labels), expected.diagonal(dim1=-2, dim2=-1).sum(-1))


def test_accuracies_of_reordered_networks_follow_from_the_confusion() -> None:
    theta = TINY.init(2, 3, generator=_generator())
    images, labels = _images(TINY, 40).float(), torch.randint(3, (40,), generator=_generator())
    data = Measured(theta, confusion(TINY, theta, images, labels))
    index = torch.tensor([[0, 2, 2, 1], [1, 1, 0, 2]])
    order = torch.tensor([[0, 1, 2], [2, 0, 1], [1, 0, 2], [0, 2, 1]]).expand(2, 4, 3)
    drawn, values = data.draw(TINY, index, order)
    torch.testing.assert_close(values, accuracy(TINY, drawn, images, labels))
    assert torch.equal(drawn[1, 0], theta[1, 1])


def test_random_orders_are_permutations_of_a_part() -> None:
    order = random_orders(4, 500, classes=10, untouched=0.25, generator=_generator())
    assert torch.equal(order.sort(-1).values, torch.arange(10).expand(4, 500, 10))
    moved = (order != torch.arange(10)).sum(-1).flatten()
    assert 0.25 < (moved == 0).float().mean() < 0.5  # the untouched, and parts of none or one class
    assert set(range(2, 11)) <= set(moved.tolist())
    still = random_orders(50, classes=10, untouched=1.0, generator=_generator())
    assert torch.equal(still, torch.arange(10).expand(50, 10))


def test_noise_is_on_half_of_the_networks_and_in_their_scale() -> None:
    theta = torch.randn(1, 400, 500, generator=_generator()) * 3
    added = (add_noise(theta, 0.5, Streams([0])) - theta)[0].std(-1)
    noisy = added > 0
    assert 0.4 < noisy.float().mean() < 0.6
    assert 1.3 < added.max() < 1.65
    assert 0.6 < added[noisy].mean() < 0.9
    assert torch.equal(add_noise(theta, 0.0, Streams([0])), theta)


def test_geometric_steps() -> None:
    assert geometric_steps(1, 100, 3) == [1, 10, 100]
    assert geometric_steps(2, 4, 10) == [2, 3, 4]
    assert geometric_steps(5, 5, 4) == [5]
    with pytest.raises(InputError, match=r"first must be in \[1, 3\], got 4"):
        geometric_steps(4, 3, 2)


# -- critics -----------------------------------------------------------------------------------------------------------


def test_probabilities_are_the_softmax() -> None:
    theta = TINY.init(2, generator=_generator(), dtype=torch.float64) * 1000
    images = _images(TINY, 6)
    torch.testing.assert_close(probabilities(TINY, theta, images), TINY.forward(theta, images).softmax(-1))


def _critics(seeds: int = 2) -> dict[str, ProbingCritic | FixedCritic]:
    config = replace(SMOKE, critic_hidden=(6,))
    critics = {name: make_critic(name, TINY, config, Streams(range(seeds))) for name in CRITICS}
    for critic in critics.values():
        critic.phi = critic.phi.double()
    learned = critics["learned"]
    probes, weights = learned.probing.split(learned.phi)
    critics["frozen"] = FixedCritic(
        learned.probing.evaluator, weights, lambda theta: probabilities(TINY, theta, probes.unsqueeze(1)).flatten(-2)
    )
    return critics


@pytest.mark.parametrize("name", CRITICS)
def test_a_critic_gives_the_gradient_of_each_seeds_own_cross_entropy(name: str) -> None:
    critic = _critics()[name]
    theta = TINY.init(2, 5, generator=_generator(), dtype=torch.float64)
    target = torch.rand(2, 5, generator=_generator(), dtype=torch.float64)
    gradient = critic.gradient(theta, target)
    kept = critic.phi
    for s in range(2):
        phi = kept.clone().requires_grad_()
        critic.phi = phi
        value = critic.logit(theta)[s].sigmoid()
        loss = -(target[s] * value.log() + (1 - target[s]) * (1 - value).log()).mean()
        (expected,) = torch.autograd.grad(loss, phi)
        torch.testing.assert_close(gradient[s], expected[s], rtol=0, atol=1e-12)


def test_the_learned_critic_is_the_frozen_one_as_long_as_its_probes_rest() -> None:
    critics = _critics()
    theta = TINY.init(2, 5, generator=_generator(), dtype=torch.float64)
    learned, frozen = critics["learned"].logit(theta), critics["frozen"].logit(theta)
    torch.testing.assert_close(learned, frozen, rtol=0, atol=1e-12)
    streams = Streams([4])
    state = streams.state()
    first = make_critic("learned", TINY, SMOKE, streams)
    streams.load(state)
    second = make_critic("frozen", TINY, SMOKE, streams)
    torch.testing.assert_close(first.logit(theta[:1].float()), second.logit(theta[:1].float()))


def test_a_critic_of_another_name_is_refused() -> None:
    with pytest.raises(InputError, match="critic must be one of"):
        make_critic("mean", TINY, SMOKE, Streams([0]))


def test_the_learned_critic_sees_nothing_but_answers() -> None:
    """Two networks that differ everywhere and answer alike have the same value; the raw critic tells them apart."""
    critics = _critics(1)
    theta = torch.stack([TINY.init(generator=_generator(), dtype=torch.float64)] * 2).unsqueeze(0)
    (filters, biases), head = TINY.unflatten(theta)[0], TINY.unflatten(theta)[1]
    swapped = TINY.flatten(
        [(filters.flip(-4), biases.flip(-1)), (head[0].unflatten(-1, (2, -1)).flip(-2).flatten(-2), head[1])]
    )
    assert (swapped - theta).abs().max() > 0.1
    for name, same in (("learned", True), ("frozen", True), ("raw", False)):
        difference = (critics[name].logit(swapped) - critics[name].logit(theta)).abs().max()
        assert (difference < 1e-12) == same, name


def _toy_data(seeds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of one bright column among three, which is the class, and a little noise."""
    labels = torch.arange(60) % 3
    images = 0.2 * torch.rand(60, 1, 5, 5, generator=_generator(seeds))
    images[torch.arange(60), 0, :, labels * 2] += 0.8
    return images, labels


def test_fit_teaches_and_a_climb_of_the_frozen_critic_raises_accuracy() -> None:
    net = replace(TINY, channels=(6,))
    images, labels = _toy_data(0)
    streams = Streams([0, 1])
    config = replace(SMOKE, probes=6, critic_steps=400, critic_batch=16, rounds=2, round_steps=200, climb_steps=40)
    config = replace(config, critic_hidden=(32,), lr_critic=1e-2, lr_climb=5e-2, climbers=8)
    trainings = Trainings(batch=8, rates=(1e-2, 1e-1), least_images=6)
    theta = trainings.run(net, images, labels, streams, 12, [0, 2, 5, 10, 20])
    data = Measured(theta, confusion(net, theta, images, labels))
    critic = make_critic("learned", net, config, streams)
    before = critic.phi.clone()
    fit(critic, net, data, lambda new: confusion(net, new, images, labels), config, streams, lr=config.lr_critic)
    assert data.theta is theta
    assert not torch.equal(critic.probing.probes(critic.phi), critic.probing.probes(before))
    assert min(spearman(critic.logit(theta).detach(), accuracy(net, theta, images, labels))) > 0.8
    frozen = critic.phi.clone()
    fresh = streams.draw(lambda g: net.init(8, generator=g))
    kept = fresh.clone()
    climbed, path, predicted = climb(critic, fresh, lambda new: accuracy(net, new, images, labels), config)
    assert torch.equal(critic.phi, frozen)
    assert torch.equal(fresh, kept)
    assert len(path) == len(predicted) == 5
    torch.testing.assert_close(path[0], accuracy(net, fresh, images, labels))
    torch.testing.assert_close(path[-1], accuracy(net, climbed, images, labels))
    assert path[0].mean() < 0.5
    assert path[-1].mean() > 0.85


def test_spearman_ranks() -> None:
    true = torch.tensor([[0.1, 0.2, 0.2, 0.9], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]])
    predicted = torch.tensor([[-3.0, 1.0, 1.0, 50.0], [4.0, 3.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    assert spearman(predicted, true) == pytest.approx([1.0, -1.0, 0.0])


# -- the whole experiment ----------------------------------------------------------------------------------------------


@dataclass
class _Set:
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def _set() -> _Set:
    (train, labels), (test, truth) = _toy_data(0), _toy_data(1)
    return _Set(train.numpy(), labels.numpy(), test.numpy(), truth.numpy())


SMOKE = ClassifierConfig(
    channels=(2,), kernel=3, stride=2, value_images=20, runs=3, run_steps=4, run_batch=4, snapshots=2, least_images=4,
    probes=2, critic_hidden=(8,), critic_batch=4, critic_steps=5, rounds=1, round_steps=3, climbers=2, climb_steps=12,
    unseen=2, fresh=3, weak_steps=2,
)  # fmt: skip


def test_the_experiment_reports_every_seed_in_plain_numbers() -> None:
    result = value_of_classifiers(_set(), [5, 0], SMOKE)
    assert json.loads(json.dumps(result)) == result
    assert result["seeds"] == [5, 0]
    assert result["path_steps"] == [0, 10, 12]
    shapes = {name: np.shape(result[name]) for name in ("true", "before", "before_weak", "probes", "first_probes")}
    unseen = 2 * 2 * 3  # trainings, with outputs in place and exchanged, a fresh start and two snapshots
    pictures = (2, 2, 5, 5)
    assert shapes == {
        "true": (2, unseen),
        "before": (2, 3),
        "before_weak": (2, 3),
        "probes": pictures,
        "first_probes": pictures,
    }
    for name in CRITICS:
        assert np.shape(result[name]["predicted"]) == (2, unseen)
        assert np.shape(result[name]["spearman"]) == (2,)
        assert np.shape(result[name]["after"]) == np.shape(result[name]["after_weak"]) == (2, 3)
        assert np.shape(result[name]["path"]) == np.shape(result[name]["path_predicted"]) == (2, 3)
        starts, ends = np.array(result[name]["path"])[:, [0, -1]].T
        np.testing.assert_allclose(starts, np.mean(result["before"], 1), rtol=1e-6)
        np.testing.assert_allclose(ends, np.mean(result[name]["after"], 1), rtol=1e-6)
    assert result["probes"] != result["first_probes"]


def test_same_seed_same_numbers_alone_or_beside_others() -> None:
    once, again = (value_of_classifiers(_set(), [0], SMOKE) for _ in range(2))
    assert once == again
    beside = value_of_classifiers(_set(), [3, 0], SMOKE)
    np.testing.assert_allclose(beside["probes"][1], once["probes"][0], rtol=0, atol=1e-3)
    np.testing.assert_allclose(beside["raw"]["predicted"][1], once["raw"]["predicted"][0], rtol=0, atol=1e-3)
    assert not np.allclose(beside["probes"][0], once["probes"][0], atol=0.05)


def test_the_critics_learn_nothing_from_the_test_images() -> None:
    blank = _set()
    blank.test_images = np.zeros_like(blank.test_images)
    one, other = value_of_classifiers(_set(), [0], SMOKE), value_of_classifiers(blank, [0], SMOKE)
    assert one["probes"] == other["probes"]
    assert all(one[name]["predicted"] == other[name]["predicted"] for name in CRITICS)
    assert one["true"] != other["true"]


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("train_images", np.zeros((60, 5, 5)), r"train_images must be \[B, C, H, W\]"),
        ("test_images", np.zeros((60, 1, 5, 6)), "test_images must have the shape of train_images"),
        ("test_labels", np.zeros(59, int), r"test_labels must be one per image \[60\]"),
        ("train_labels", np.full(60, -1), "train_labels must not be negative, got -1"),
    ],
)
def test_images_that_do_not_fit_are_refused(part: str, value: np.ndarray, words: str) -> None:
    images = _set()
    setattr(images, part, value)
    with pytest.raises(InputError, match=words):
        value_of_classifiers(images, [0], SMOKE)


def test_seeds_and_held_out_images_are_checked() -> None:
    with pytest.raises(InputError, match="seeds must not be empty"):
        value_of_classifiers(_set(), [], SMOKE)
    with pytest.raises(InputError, match="value_images must be below the 60 training images, got 60"):
        value_of_classifiers(_set(), [0], replace(SMOKE, value_images=60))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("runs", 0),
        ("climb_steps", 0),
        ("fresh", 0),
        ("noise", -0.1),
        ("rounds", -1),
        ("least_rate", 0.0),
        ("least_rate", 0.1),
        ("lr_raw", 0.0),
        ("untouched", 1.5),
        ("climbed_share", -0.1),
        ("critic_hidden", (8, 0)),
    ],
)
def test_bad_fields_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        ClassifierConfig(**{field: value})


def test_probing_critic_takes_images_with_channels() -> None:
    net = SHAPES[2]
    probing = Probing(net.image, 4, net.classes, (5,))
    critic = ProbingCritic(net, probing, probing.init(2, generator=_generator()))
    theta = net.init(2, 3, generator=_generator())
    assert critic.logit(theta).shape == (2, 3)
    assert critic.gradient(theta, torch.rand(2, 3)).shape == critic.phi.shape
    flat = FixedCritic(MLP((net.num_parameters, 1)), torch.zeros(2, net.num_parameters + 1), lambda theta: theta)
    assert torch.equal(flat.logit(theta), torch.zeros(2, 3))
