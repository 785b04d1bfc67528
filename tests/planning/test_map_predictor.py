"""Maps from views: what is known beforehand, who sees what, and learning from made-up views and from the engine's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mindworks.errors import InputError
from mindworks.planning.dt_vin import DTVIN
from mindworks.planning.losses import planning_loss
from mindworks.planning.map_predictor import EndToEnd, MapPredictor, lattice, map_accuracy, map_loss
from mindworks.planning.mazes import Mazes, generate
from mindworks.planning.mechanisms import NEWS

VIEW = (4, 6)


def predictor(view: tuple[int, int] = VIEW, seed: int = 0, **options: int) -> MapPredictor:
    return MapPredictor(view, generator=torch.Generator().manual_seed(seed), **options)


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 4, *VIEW, 3), dtype=torch.uint8, generator=generator)


def lamps(free: Tensor) -> Tensor:
    """Made-up views of rooms, no renderer: white where the next cell in the view's direction is open, else black."""
    ahead = [free[:, 1 + down : free.shape[1] - 1 + down : 2, 1 + right : free.shape[2] - 1 + right : 2]
             for moves in NEWS.moves for _, down, right in moves]  # fmt: skip
    shape = (*ahead[0].shape, 4, *VIEW, 3)
    return (255 * torch.stack(ahead, -1)).to(torch.uint8)[..., None, None, None].expand(shape)


def train(
    model: torch.nn.Module, loss: Callable[[], Tensor], steps: int, lr: float = 3e-3, clip: float = 10.0
) -> list[float]:
    optimizer, losses = torch.optim.Adam(model.parameters(), lr), []
    for _ in range(steps):
        optimizer.zero_grad()
        found = loss()
        found.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        losses.append(found.item())
    return losses


def test_the_cells_of_a_lattice() -> None:
    cells = lattice(5, 7)
    kinds = {"rooms": "o", "passages": "-", "pillars": "x", "border": "#"}
    drawn = [["" for _ in range(7)] for _ in range(5)]
    for kind, letter in kinds.items():
        for row, column in cells[kind].nonzero().tolist():
            drawn[row][column] += letter
    assert ["".join(row) for row in drawn] == ["#######", "#o-o-o#", "#-x-x-#", "#o-o-o#", "#######"]


def test_rooms_are_open_and_the_border_is_closed() -> None:
    logits = predictor()(noise(2, 2, 3))
    cells = lattice(5, 7)
    assert logits.shape == (2, 5, 7)
    assert (logits[:, cells["rooms"]].sigmoid() > 1 - 1e-6).all()
    assert (logits[:, cells["border"]].sigmoid() < 1e-6).all()
    assert (logits[:, cells["passages"] | cells["pillars"]].abs() < 5).all()


def test_each_maze_is_predicted_from_its_own_views() -> None:
    model, views = predictor(), noise(3, 3, 2)
    together = model(views)
    torch.testing.assert_close(together, torch.cat([model(views[i : i + 1]) for i in range(3)]))
    assert not torch.equal(together[0], together[1])
    torch.testing.assert_close(predictor()(views), together, rtol=0, atol=0)
    assert not torch.equal(predictor(seed=1)(views), together)


def test_a_view_changes_cells_near_its_room_alone() -> None:
    model, views = predictor(), noise(1, 5, 5)
    changed = views.clone()
    changed[0, 2, 2, 3] = 255 - changed[0, 2, 2, 3]
    rows, columns = ((model(changed) - model(views)).abs() > 0)[0].nonzero(as_tuple=True)
    assert len(rows) > 4
    assert max((rows - 5).abs().max(), (columns - 5).abs().max()) <= 2


def test_walls_are_learnt_from_made_up_views_that_tell_them() -> None:
    train_mazes, test_mazes = generate(60, 7, seed=0), generate(40, 7, seed=1)
    model = predictor(features=8, hidden=16)
    views = lamps(train_mazes.free)
    losses = train(model, lambda: map_loss(model(views), train_mazes.free), 60, lr=1e-2)
    assert losses[0] == pytest.approx(0.69, abs=0.1)
    with torch.no_grad():
        logits = model(lamps(test_mazes.free))
    assert map_accuracy(logits, test_mazes.free)["passages"] == 1.0
    turned = lamps(test_mazes.free).roll(1, 3)  # east for north: the wrong cells now
    assert map_accuracy(model(turned), test_mazes.free)["passages"] < 0.9


def test_loss_and_accuracy_leave_out_what_is_known() -> None:
    free = torch.zeros(1, 5, 5, dtype=torch.bool)
    free[0, 1::2, 1::2] = True
    free[0, 1, 2] = free[0, 2, 2] = True
    logits = torch.where(free, 1.0, -1.0)
    wrong = logits.clone()
    wrong[0, 2, 1] = 1.0  # of four passages
    wrong[0, 2, 2] = -1.0  # the only pillar
    wrong[0, 1, 1] = wrong[0, 0, 0] = float("nan")
    softplus = torch.nn.functional.softplus
    expected = (3 * softplus(torch.tensor(-1.0)) + 2 * softplus(torch.tensor(1.0))) / 5
    torch.testing.assert_close(map_loss(wrong, free), expected)
    assert map_accuracy(logits, free) == {"passages": 1.0, "pillars": 1.0}
    assert map_accuracy(wrong, free) == {"passages": 0.75, "pillars": 0.0}


def planner(depth: int = 12) -> DTVIN:
    return DTVIN(depth=depth, generator=torch.Generator().manual_seed(0))


def test_the_planner_sees_the_predicted_map() -> None:
    mazes = generate(3, 7, seed=0)
    model = EndToEnd(predictor(), planner())
    inputs, logits = model.inputs(lamps(mazes.free), mazes.goal_maps())
    assert inputs.shape == mazes.inputs().shape
    torch.testing.assert_close(inputs[:, 0], logits.sigmoid())
    torch.testing.assert_close(inputs[:, 1:], mazes.goal_maps())
    out = model(lamps(mazes.free), mazes.goal_maps(), depth=5)
    torch.testing.assert_close(out, model.planner(inputs, depth=5))


def test_a_map_without_doubt_gives_the_plan_of_the_true_map() -> None:
    mazes = generate(4, 7, decimation=(0.0, 0.0), seed=0)
    model = EndToEnd(predictor(), planner())
    model.predictor.forward = lambda views: torch.where(mazes.free, 30.0, -30.0)  # type: ignore[method-assign]
    out = model(lamps(mazes.free), mazes.goal_maps())
    torch.testing.assert_close(out, model.planner(mazes.inputs()), rtol=1e-4, atol=1e-4)


def test_the_loss_is_the_planners_and_that_of_the_map() -> None:
    mazes, layers = generate(4, 7, seed=0), [6, 12]
    model, views = EndToEnd(predictor(), planner()), lamps(mazes.free)
    inputs, map_logits = model.inputs(views, mazes.goal_maps())
    logits = model.planner.logits(inputs, keep=layers)
    paths = planning_loss(logits, mazes.target(), mazes.distances, layers, "all")
    torch.testing.assert_close(model.loss(views, mazes, layers, kind="all"), paths)
    both = model.loss(views, mazes, layers, kind="all", map_weight=0.5)
    torch.testing.assert_close(both, paths + 0.5 * map_loss(map_logits, mazes.free))


def test_paths_alone_teach_the_map() -> None:
    mazes, layers = generate(20, 7, seed=0), [12]
    model = EndToEnd(predictor(), planner())
    for parameter in model.planner.parameters():
        parameter.requires_grad_(False)
    views = lamps(mazes.free)
    before = {name: weight.clone() for name, weight in model.predictor.named_parameters()}
    losses = train(model.predictor, lambda: model.loss(views, mazes, layers), 20)
    assert losses[-1] < losses[0]
    assert all(not torch.equal(weight, before[name]) for name, weight in model.predictor.named_parameters())


def test_a_map_that_is_wrong_and_sure_can_be_shrunk_back_into_doubt() -> None:
    mazes, layers = generate(4, 7, seed=0), [12]
    model, views = EndToEnd(predictor(), planner()), lamps(mazes.free)
    last = model.predictor.decoder[-1]
    with torch.no_grad():
        last.bias.fill_(200.0)  # open all over
    bias, inside = last.bias, lattice(7, 7)
    plain, shrunk = (model.loss(views, mazes, layers, shrink=weight) for weight in (0.0, 0.1))
    logits = model.predictor(views)[:, inside["passages"] | inside["pillars"]]
    torch.testing.assert_close(shrunk, plain + 0.1 * logits.square().mean())
    assert float(torch.autograd.grad(plain, bias, retain_graph=True)[0]) == 0
    torch.testing.assert_close(torch.autograd.grad(shrunk, bias)[0][0], 0.2 * logits.mean())


def test_bad_shapes_are_refused() -> None:
    model, free = predictor(), torch.ones(1, 5, 5, dtype=torch.bool)
    for views in (noise(1, 2, 2).float(), noise(1, 2, 2)[0], noise(1, 2, 2)[:, :, :, :3], noise(1, 2, 2).mT):
        with pytest.raises(InputError, match=r"views must be uint8 \[B, h, w, 4, 4, 6, 3\], got"):
            model(views)
    with pytest.raises(InputError, match=r"goals must be \[1, O, 5, 5\], got shape \(1, 1, 7, 7\)"):
        EndToEnd(model, planner())(noise(1, 2, 2), torch.zeros(1, 1, 7, 7))
    with pytest.raises(InputError, match="must be odd and at least 3, got 4 by 5"):
        lattice(4, 5)
    with pytest.raises(InputError, match=r"logits must be \[B, H, W\], got shape \(5, 5\)"):
        map_loss(torch.zeros(5, 5), free)
    with pytest.raises(InputError, match=r"free must be \(1, 5, 7\), got shape \(1, 5, 5\)"):
        map_accuracy(torch.zeros(1, 5, 7), free)
    with pytest.raises(InputError, match="channels, features and hidden must be positive"):
        predictor(hidden=0)
    with pytest.raises(InputError, match="view must be a height and a width in pixels"):
        predictor((0, 3))


def _prior(mazes: Mazes, others: Mazes) -> float:
    """Accuracy on the passages of `others` of the one answer that is right more often in `mazes`."""
    passages = lattice(*mazes.free.shape[1:])["passages"]
    answer = mazes.free[:, passages].double().mean() > 0.5
    return float((others.free[:, passages] == answer).double().mean())


def test_walls_are_learnt_from_the_engines_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vizdoom")
    from mindworks.data.doom import room_views

    monkeypatch.chdir(tmp_path)
    mazes, others = generate(20, 7, decimation=(0.0, 0.3), seed=0), generate(10, 7, decimation=(0.0, 0.3), seed=1)
    views, other_views = (torch.from_numpy(room_views(part.free.numpy(), tmp_path)) for part in (mazes, others))
    model = predictor((24, 32))
    train(model, lambda: map_loss(model(views), mazes.free), 40)
    with torch.no_grad():
        accuracy = map_accuracy(model(other_views), others.free)["passages"]
    assert _prior(mazes, others) < 0.8
    assert accuracy > 0.95
