"""Training resumes bit for bit, follows its schedules, keeps the best planner, and learns."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from planner_helpers import PLANNERS, maps, planner, rng, solver

from mindworks.errors import InputError
from mindworks.lab import checkpoint
from mindworks.planning import (
    DTVIN,
    VIN,
    DTVINConfig,
    Mazes,
    Training,
    TrainingConfig,
    evaluate,
    generate,
    informed_vin,
    score,
)
from mindworks.planning import training as module
from mindworks.planning.losses import LOSSES, planning_loss

MAZES = generate(10, 7, seed=0)
VALIDATION = generate(6, 7, seed=1)


def training(kind: str = "dt_vin", *, seed: int = 0, validation: Mazes | None = None, **config) -> Training:
    settings = TrainingConfig(**{"iterations": 6, "batch": 4, "every": 2, "validate_every": 2, **config})
    return Training(planner(kind), MAZES, settings, validation=validation, seed=seed)


def finished(run: Training) -> Training:
    while not run.done:
        run.advance()
    return run


def assert_same(left, right) -> None:
    """Nested states that are equal bit for bit."""
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for name in left:
            assert_same(left[name], right[name])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    else:
        assert left == right


@pytest.mark.parametrize("labels", ["all", "single"])
@pytest.mark.parametrize(("kind", "sharpness"), [*((kind, 1.0) for kind in PLANNERS), ("dt_vin", 4.0)])
def test_a_resumed_run_equals_an_unbroken_one(kind, sharpness, labels, tmp_path: Path):
    config = {"sharpness": sharpness, "labels": labels}
    whole = training(kind, validation=VALIDATION, **config)
    for _ in range(3):
        whole.advance()
    checkpoint.save(tmp_path, whole.state())
    resumed = training(kind, validation=VALIDATION, seed=99, **config)
    resumed.advance()
    resumed.load(checkpoint.load(tmp_path))
    assert_same(resumed.state(), whole.state())
    assert not resumed.done
    finished(resumed), finished(whole)
    assert resumed.metrics() == whole.metrics()
    assert_same(resumed.state(), whole.state())
    inputs = MAZES.inputs()
    assert torch.equal(resumed.finish()(inputs), whole.finish()(inputs))


def test_the_best_planner_survives_a_break(tmp_path: Path, monkeypatch):
    run = scripted(monkeypatch, [0.9, 0.1, 0.2], iterations=6)
    for _ in range(2):
        run.advance()
    best = run.flat.clone()
    checkpoint.save(tmp_path, run.state())
    resumed = scripted(monkeypatch, [0.1, 0.2], iterations=6)
    resumed.load(checkpoint.load(tmp_path))
    finished(resumed)
    assert not torch.equal(resumed.flat, best)
    resumed.finish()
    assert torch.equal(resumed.flat, best)
    assert resumed.best[0] == 0.9


@pytest.mark.parametrize("kind", ["dt_vin", "highway_vin"])
def test_the_same_seed_gives_the_same_numbers_and_leaves_global_randomness_alone(kind):
    first, other = training(kind, labels="single"), training(kind, labels="single", seed=1)
    state = torch.get_rng_state()
    finished(first)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    again = finished(training(kind, labels="single"))
    assert_same(first.state(), again.state())
    assert not torch.equal(first.flat, finished(other).flat)


def test_parameters_of_the_planner_are_views_of_one_row():
    run = training()
    before = {name: value.clone() for name, value in run.planner.state_dict().items()}
    assert_same(before, dict(planner("dt_vin").state_dict()))
    run.flat += 1
    for name, parameter in run.planner.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 1)
    assert run.flat.shape == (1, sum(parameter.numel() for parameter in run.planner.parameters()))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("labels", ["all", "single"])
def test_a_step_is_adams_on_the_clipped_gradient_of_the_planning_loss(loss, labels):
    run = training(loss=loss, labels=labels, clip=0.05, every=3)
    assert run.layers == ([4] if loss == "last" else [3, 4])
    twin = planner("dt_vin")
    draws = rng(0)
    order = torch.randperm(len(MAZES), generator=draws)
    mazes = MAZES[order[:4]]
    target = mazes.target(labels, generator=draws)
    logits = torch.stack([twin(mazes.inputs(), depth=layer) for layer in run.layers])
    expected = planning_loss(logits, target, mazes.distances, run.layers, loss)
    gradients = torch.autograd.grad(expected, list(twin.parameters()))
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    assert norm > 0.05
    optimiser = torch.optim.Adam(twin.parameters(), lr=run.config.lr)
    for parameter, gradient in zip(twin.parameters(), gradients, strict=True):
        parameter.grad = gradient * 0.05 / norm
    optimiser.step()
    run.advance()
    assert run.metrics() == {
        "step": 1,
        "loss": pytest.approx(expected.item(), rel=1e-5),
        "gradient": pytest.approx(norm, rel=1e-4),
    }
    for (name, found), parameter in zip(run.planner.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, parameter, rtol=0, atol=2e-4, msg=name)


@pytest.mark.parametrize(("clip", "scale"), [(1e9, 1.0), (1e-3, None)])
def test_gradients_are_clipped_to_their_norm_and_reported_as_they_were(clip, scale, monkeypatch):
    run, seen = training(clip=clip), []
    step = run.adam.step
    monkeypatch.setattr(run.adam, "step", lambda gradient: (seen.append(float(gradient.norm())), step(gradient)))
    run.advance()
    reported = run.metrics()["gradient"]
    assert reported > 1e-2
    assert seen == [pytest.approx(reported * scale if scale else 1e-3, rel=1e-4)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite_leave_the_planner_alone(bad, monkeypatch):
    run = training()
    run.advance()
    before, count = run.flat.clone(), run.adam.count.clone()
    moments = run.adam.mean.clone()
    good = run.loss
    monkeypatch.setattr(run, "loss", lambda mazes: run.planner.log_gain * bad + run.planner.hidden.weight.sum())
    run.advance()
    assert torch.equal(run.flat, before)
    assert torch.equal(run.adam.mean, moments)
    assert torch.equal(run.adam.count, count)
    assert run.step == 2
    assert not math.isfinite(run.metrics()["gradient"])
    monkeypatch.setattr(run, "loss", good)
    run.advance()
    assert not torch.equal(run.flat, before)
    assert run.flat.isfinite().all()


def test_the_step_size_falls_in_a_straight_line():
    config = TrainingConfig(iterations=101, lr=0.5, final_lr=0.1)
    assert [config.lr_at(step) for step in (0, 50, 100)] == pytest.approx([0.5, 0.275, 0.05])
    assert TrainingConfig(iterations=1, lr=0.5, final_lr=0.1).lr_at(0) == 0.5
    assert TrainingConfig(iterations=7, lr=0.5, final_lr=1.0).lr_at(6) == 0.5
    assert TrainingConfig(iterations=7, lr=0.5, final_lr=0.0).lr_at(6) == 0


def test_sharpness_rises_in_equal_ratios_between_a_fifth_and_four_fifths():
    config = TrainingConfig(iterations=100, sharpness=16.0)
    steps = (0, 19, 20, 35, 50, 65, 80, 99, 100)
    assert [config.sharpness_at(step) for step in steps] == pytest.approx([1, 1, 1, 2, 4, 8, 16, 16, 16])
    assert {TrainingConfig(iterations=100).sharpness_at(step) for step in range(100)} == {1.0}


def test_every_step_uses_the_step_size_and_sharpness_of_its_number(monkeypatch):
    run, seen = training(iterations=10, sharpness=4.0, lr=0.02, final_lr=0.1), []
    good = run.loss
    monkeypatch.setattr(run, "loss", lambda mazes: (seen.append(float(run.planner.sharpness)), good(mazes))[1])
    rates = []
    while not run.done:
        run.advance()
        rates.append(run.adam.lr)
    assert seen == pytest.approx([run.config.sharpness_at(step) for step in range(10)])
    assert seen[0] == 1
    assert seen[-1] == pytest.approx(4)
    assert rates == pytest.approx([run.config.lr_at(step) for step in range(10)])


def scripted(monkeypatch, successes: list[float], **config) -> Training:
    """A run whose looks at the validation mazes find these success rates, one after the other."""
    left = iter(successes)

    class Found:
        @property
        def success_rate(self) -> float:
            return next(left)

    monkeypatch.setattr(module, "score", lambda *_, **__: Found())
    return training(validation=VALIDATION, **config)


@pytest.mark.parametrize(
    ("successes", "best"), [([0.1, 0.9, 0.5], 1), ([0.9, 0.1, 0.9], 2), ([0.5, 0.4, 0.3], 0), ([0.0, 0.0, 0.0], 2)]
)
def test_finish_restores_the_planner_of_the_best_look(successes, best, monkeypatch):
    run, looks = scripted(monkeypatch, successes, validate_every=2), []
    while not run.done:
        run.advance()
        if run.step % 2 == 0:
            looks.append(run.flat.clone())
            assert run.metrics()["validation"] == successes[len(looks) - 1]
        else:
            assert "validation" not in run.metrics()
    planner_of_best = run.finish()
    assert not planner_of_best.training
    assert torch.equal(run.flat, looks[best])
    assert run.best[0] == successes[best]


def test_looks_before_the_kernels_are_sharp_do_not_count(monkeypatch):
    run = scripted(monkeypatch, [0.9, 0.8, 0.1, 0.3, 0.2], iterations=10, validate_every=2, sharpness=4.0)
    looks = []
    while not run.done:
        run.advance()
        if run.step % 2 == 0:
            looks.append(run.flat.clone())
    assert run.best[0] == 0.3
    expected = planner("dt_vin")
    _load(expected, looks[3])
    expected.sharpness.fill_(4.0)
    found = run.finish()
    assert float(found.sharpness) == 1
    torch.testing.assert_close(found(MAZES.inputs()), expected.eval()(MAZES.inputs()), rtol=1e-4, atol=1e-4)


def _load(one, flat: torch.Tensor) -> None:
    sizes = [parameter.numel() for parameter in one.parameters()]
    for parameter, part in zip(one.parameters(), flat[0].split(sizes), strict=True):
        parameter.data.copy_(part.view_as(parameter))


def test_looks_are_at_the_sharpness_of_the_finished_step(monkeypatch):
    run, seen = training(iterations=10, sharpness=4.0, validation=VALIDATION), []
    good = module.score
    monkeypatch.setattr(module, "score", lambda one, *a, **k: (seen.append(float(one.sharpness)), good(one, *a))[1])
    finished(run)
    assert seen == pytest.approx([run.config.sharpness_at(step) for step in (2, 4, 6, 8, 10)])
    assert seen[-2:] == [4.0, 4.0]


@pytest.mark.parametrize("validation", [None, VALIDATION])
def test_a_run_may_be_finished_twice_and_after_a_break(validation, tmp_path: Path):
    run = finished(training(sharpness=3.0, validation=validation))
    first = run.finish()(MAZES.inputs())
    assert torch.equal(run.finish()(MAZES.inputs()), first)
    checkpoint.save(tmp_path, run.state())
    again = training(sharpness=3.0, validation=validation)
    again.load(checkpoint.load(tmp_path))
    assert torch.equal(again.finish()(MAZES.inputs()), first)


def test_a_softmax_vin_is_sharpened_and_folded():
    one = VIN("news", 4, informed_vin(softmax=True), generator=rng())
    run = Training(one, MAZES, TrainingConfig(iterations=5, batch=4, every=2, sharpness=4.0))
    finished(run)
    assert float(one.sharpness) == pytest.approx(4)
    before = one(MAZES.inputs())
    assert float(run.finish().sharpness) == 1
    torch.testing.assert_close(one(MAZES.inputs()), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", PLANNERS)
def test_planners_in_double_precision_train_and_score(kind):
    one = planner(kind).double()
    run = Training(one, MAZES, TrainingConfig(iterations=2, batch=4, every=2), validation=VALIDATION)
    before = run.flat.clone()
    finished(run)
    assert run.flat.dtype == torch.float64
    assert not torch.equal(run.flat, before)
    assert 0 <= run.metrics()["validation"] <= 1


def test_only_losses_between_layers_care_for_blocks():
    run = Training(planner("residual"), MAZES, TrainingConfig(iterations=1, batch=4, every=3, loss="last"))
    assert finished(run).layers == [4]


def test_without_validation_the_last_planner_stays():
    run = finished(training())
    last = run.flat.clone()
    assert torch.equal(torch.cat([p.flatten() for p in run.finish().parameters()]), last[0])
    assert run.best is None
    assert "validation" not in run.metrics()


def test_history_has_a_row_per_look_and_one_at_the_end():
    run, rows = training(iterations=5, validate_every=2), []
    while not run.done:
        run.advance()
        rows.append([run.metrics()[name] for name in ("step", "loss", "gradient")])
    assert run.history == [rows[1], rows[3], rows[4]]
    assert [row[0] for row in run.history] == [2, 4, 5]


def test_a_pass_takes_every_maze_once():
    free = torch.ones(7, 3, 3, dtype=torch.bool)
    goal = torch.tensor([[0, i // 3, i % 3] for i in range(7)])
    run = Training(planner("dt_vin"), Mazes.from_arrays(free, goal, "news"), TrainingConfig(batch=3))
    places = [(3 * batch.goal[:, 1] + batch.goal[:, 2]).tolist() for batch in (run.batch() for _ in range(7))]
    drawn = [place for batch in places for place in batch]
    passes = [drawn[start : start + 7] for start in (0, 7, 14)]
    assert all(len(batch) == 3 for batch in places)
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3


def test_a_score_is_the_same_every_time_and_leaves_the_planner_in_training(monkeypatch):
    one, modes = planner("highway_vin").train(), []
    act = one.act
    monkeypatch.setattr(one, "act", lambda *a, **k: (modes.append(one.training), act(*a, **k))[1])
    found, again = score(one, VALIDATION), score(one, VALIDATION)
    assert one.training
    assert modes == [False, False]
    direct = evaluate(act(VALIDATION.inputs()), VALIDATION)
    for name in ("starts", "successes", "optimal", "maze_successes"):
        assert torch.equal(getattr(found, name), getattr(direct, name))
        assert torch.equal(getattr(found, name), getattr(again, name))
    one.eval()
    score(one, VALIDATION)
    assert not one.training


def test_a_score_of_no_mazes_is_empty():
    found = score(planner("dt_vin"), MAZES[:0])
    assert found.starts.sum() == 0
    assert math.isnan(found.success_rate)


def test_a_score_at_another_depth_is_that_of_such_a_planner():
    one = solver(depth=60)
    whole, short = score(one, VALIDATION), score(one, VALIDATION, depth=2)
    assert whole.success_rate == 1
    assert short.success_rate < 1
    assert torch.equal(short.optimal, evaluate(solver(depth=2).act(VALIDATION.inputs()), VALIDATION).optimal)


def test_padded_mazes_are_told_as_much_in_a_batch_as_alone():
    small, large = generate(3, 7, seed=0), generate(3, 11, seed=1)
    one = solver(depth=8).double()

    def loss(mazes: Mazes) -> tuple[torch.Tensor, int]:
        logits = one.logits(mazes.inputs().double(), keep=[4, 8])
        pairs = sum(int(((mazes.distances >= 1) & (mazes.distances <= layer)).sum()) for layer in (4, 8))
        return planning_loss(logits, mazes.target().double(), mazes.distances, [4, 8]), pairs

    together, pairs = loss(Mazes.concatenate([small, large]))
    (first, a), (second, b) = loss(small), loss(large)
    assert pairs == a + b
    torch.testing.assert_close(together * pairs, first * a + second * b, rtol=1e-9, atol=0)
    parameters = [one.transition.weight, one.transition.bias, one.log_gain]
    apart = torch.autograd.grad(first * a + second * b, parameters)
    for found, expected in zip(torch.autograd.grad(together * pairs, parameters), apart, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_a_planner_learns_to_plan():
    mazes, unseen = generate(200, 9, decimation=(0.0, 0.5), seed=0), generate(30, 9, decimation=(0.0, 0.5), seed=1)
    one = DTVIN("news", 24, DTVINConfig(hidden=6), generator=rng())
    before = score(one, unseen).success_rate
    config = TrainingConfig(iterations=60, batch=16, lr=3e-2, every=8, sharpness=4.0, validate_every=60)
    run = finished(Training(one, mazes, config))
    after = score(run.finish(), unseen).success_rate
    assert before < 0.6
    assert after > 0.9


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"validate_every": 0}, "validate_every must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"lr": float("nan")}, "lr must be positive, got nan"),
        ({"final_lr": -0.1}, r"final_lr must be in \[0, 1\], got -0.1"),
        ({"final_lr": 1.1}, r"final_lr must be in \[0, 1\], got 1.1"),
        ({"clip": 0.0}, "clip must be positive, got 0.0"),
        ({"loss": "some"}, "loss must be one of adaptive, all, first, last, got 'some'"),
        ({"labels": "some"}, "labels must be all or single, got 'some'"),
        ({"sharpness": 0.5}, "sharpness must be at least 1, got 0.5"),
    ],
)
def test_bad_settings_are_refused_in_one_line_that_names_them(config, names):
    with pytest.raises(InputError, match=names) as error:
        TrainingConfig(**config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: training(batch=11), "mazes must be at least batch 11, got 10"),
        (
            lambda: Training(planner("dt_vin"), maps("moore", count=40)),
            "mazes must move as the planner does, news, got moore",
        ),
        (
            lambda: training(validation=maps("moore")),
            "validation must move as the planner does, news, got moore",
        ),
        (lambda: score(solver(), maps("diffdrive")), "mazes must move as the planner does, news, got diffdrive"),
        *(
            (lambda kind=kind: training(kind, sharpness=3.0), "sharpness must be 1 for this planner, got 3.0")
            for kind in ("vin", "highway_vin", "gppn")
        ),
        *(
            (lambda kind=kind: training(kind, every=3), "every must be a multiple of the planner's block 2, got 3")
            for kind in ("residual", "dense", "highway_vin")
        ),
    ],
)
def test_mazes_and_settings_that_do_not_fit_the_planner_are_refused(call, names):
    with pytest.raises(InputError, match=names):
        call()
