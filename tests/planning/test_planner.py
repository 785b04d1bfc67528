"""What all planners share: layers to read, batches, precision, maps of one's own, and plans that end early."""

from __future__ import annotations

import pytest
import torch
from planner_helpers import MECHANISMS, PLANNERS, maps, planner, rng, solver

from mindworks.errors import InputError
from mindworks.planning import DTVIN, DTVINConfig, Mazes, Mechanism, generate, score
from mindworks.planning.planner import Planner, ValueIterationPlanner

KINDS = tuple(PLANNERS)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("kind", KINDS)
def test_kept_layers_are_those_of_shallower_passes(kind, mechanism):
    one, mazes = planner(kind, mechanism, depth=6).eval(), maps(mechanism)
    kept = one.logits(mazes.inputs(), keep=[2, 4, 6])
    assert kept.shape == (3, 2, one.mechanism.actions, one.mechanism.orientations, 5, 6)
    for row, depth in zip(kept, (2, 4, 6), strict=True):
        torch.testing.assert_close(row, one(mazes.inputs(), depth=depth), rtol=0, atol=1e-5)
    torch.testing.assert_close(one(mazes.inputs()), kept[2], rtol=0, atol=1e-5)
    assert (kept[0] - kept[2]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_maps_of_a_batch_do_not_see_each_other(kind):
    one, inputs = planner(kind).eval(), maps(count=5).inputs()
    together = one(inputs)
    for index in range(5):
        torch.testing.assert_close(one(inputs[index : index + 1]), together[index : index + 1], rtol=0, atol=1e-5)
    actions = one.act(inputs, batch=2)
    assert torch.equal(actions, together.argmax(1))
    assert torch.equal(one.act(inputs, batch=64), actions)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("kind", KINDS)
def test_double_precision_works_from_maps_to_logits_and_plans(kind, mechanism):
    one, mazes = planner(kind, mechanism).eval(), maps(mechanism, count=1)
    single = one(mazes.inputs())
    one.double()
    double = one(mazes.inputs().double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-4, atol=1e-4)
    plan = one.plan(mazes.free[0], mazes.goal[0].tolist())
    assert torch.equal(plan.actions, double.argmax(1)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_generator_gives_the_same_planner(kind):
    first, again, other = planner(kind), planner(kind), planner(kind, seed=1)
    states = zip(first.state_dict().items(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for (_, a), b in states)
    inputs = maps().inputs()
    assert not torch.equal(first.eval()(inputs), other.eval()(inputs))


@pytest.mark.parametrize("kind", KINDS)
def test_drawing_anew_is_the_draw_of_the_constructor_and_leaves_nothing_out(kind):
    one = planner(kind)
    kept = {name: value.clone() for name, value in one.state_dict().items()}
    one.reset(rng(7))
    assert not torch.equal(one.hidden.weight, kept["hidden.weight"])
    for value in one.state_dict().values():
        value.fill_(9)
    one.reset(rng(0))
    for name, value in one.state_dict().items():
        assert torch.equal(value, kept[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_global_randomness_is_neither_read_nor_changed(kind):
    state = torch.get_rng_state()
    one = planner(kind).train()
    one.reset(rng())
    one.act(maps().inputs())
    plan = one.plan(FREE, (0, 0))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(planner(kind).eval().plan(FREE, (0, 0)).actions, plan.actions)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_another_form_are_refused(kind, mechanism):
    one, right = planner(kind, mechanism), maps(mechanism).inputs()
    channels = right.shape[1]
    for wrong in (right[:, :-1], torch.cat([right, right], 1), right[0]):
        with pytest.raises(
            InputError, match=rf"inputs must be \[B, {channels}, H, W\] for {mechanism}, got shape"
        ) as e:
            one(wrong)
        assert "\n" not in str(e.value)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_depths_and_mechanisms_are_refused(kind):
    with pytest.raises(InputError, match=r"mechanism must be one of .*'king'"):
        planner(kind, "king")
    with pytest.raises(InputError, match=r"depth must be .*got -2"):
        planner(kind, depth=-2)
    one, inputs = planner(kind), maps().inputs()
    for call in (
        lambda: planner(kind, depth=0),
        lambda: one(inputs, depth=0),
        lambda: one.act(inputs, depth=0),
        lambda: one.plan(FREE, (0, 0), depth=0),
    ):
        with pytest.raises(InputError, match="depth must be at least 1, got 0"):
            call()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("keep", "names"),
    [
        ([], "keep must name at least one layer, got none"),
        ([0, 2], "keep must lie in 1 to layers=4, got 0 to 2"),
        ([-2], "keep must lie in 1 to layers=4, got -2 to -2"),
        ([4, 6], "keep must lie in 1 to layers=4, got 4 to 6"),
        ([4, 2], r"keep must be strictly increasing, got \(4, 2\)"),
        ([2, 2], r"keep must be strictly increasing, got \(2, 2\)"),
    ],
)
def test_layers_that_there_are_not_are_refused(kind, keep, names):
    with pytest.raises(InputError, match=names):
        planner(kind).logits(maps().inputs(), keep=keep)


def test_depths_and_layers_have_one_door_each():
    plain, blocks = planner("dt_vin"), planner("residual")
    assert (plain.layers(None), plain.layers(7), blocks.layers(6)) == (4, 7, 6)
    assert (plain.kept(None, 7), plain.kept([1, 7], 7), blocks.kept([2, 6], 6)) == ((7,), (1, 7), (2, 6))
    with pytest.raises(InputError, match="depth must be a multiple of block 2, got 5"):
        blocks.layers(5)
    with pytest.raises(InputError, match=r"keep must hold multiples of block 2, got \[3\]"):
        blocks.kept([2, 3, 4], 4)


def test_a_planner_without_parts_says_so():
    with pytest.raises(TypeError, match="Planner gives no logits"):
        Planner("news", 3)(torch.zeros(1, 2, 3, 3))
    bare = ValueIterationPlanner("news", 3)
    with pytest.raises(TypeError, match="no latent process"):
        bare(torch.zeros(1, 2, 3, 3))
    with pytest.raises(TypeError, match="reads no values"):
        bare.read(None, torch.zeros(1))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_inputs_of_a_map_are_those_of_a_maze(mechanism):
    mazes, one = maps(mechanism), planner("gppn", mechanism)
    for index in range(2):
        goal = mazes.goal[index].tolist()
        assert torch.equal(one.encode(mazes.free[index], goal)[0], mazes.inputs()[index])
        assert torch.equal(one.encode(mazes.free[index].int(), goal)[0], mazes.inputs()[index])
        assert torch.equal(one.encode(mazes.free[index].numpy(), goal)[0], mazes.inputs()[index])
        first = one.encode(mazes.free[index], goal[1:])[0]
        assert first[1, goal[1], goal[2]] == 1
        assert first[1:].sum() == 1


FREE = torch.ones(4, 6, dtype=torch.bool)
FREE[2, 3] = False


@pytest.mark.parametrize("kind", ["dt_vin", "gppn", "highway_vin"])
@pytest.mark.parametrize(
    ("free", "goal", "names"),
    [
        (FREE, (2, 3), r"goal must be a free cell, got the wall \(2, 3\)"),
        (FREE, (4, 0), r"goal must lie inside \(1, 4, 6\) \(orientations, rows, columns\), got \(4, 0\)"),
        (FREE, (0, 6), r"goal must lie inside .*got \(0, 6\)"),
        (FREE, (-1, 0), r"goal must lie inside .*got \(-1, 0\)"),
        (FREE, (1, 0, 0), r"goal must lie inside .*got \(1, 0, 0\)"),
        (FREE, (1,), r"goal must be whole numbers \(row, column\) or \(orientation, row, column\), got \(1,\)"),
        (FREE, (0, 0, 1, 1), r"goal must be whole numbers .*got \(0, 0, 1, 1\)"),
        (FREE, (1.7, 2.2), r"goal must be whole numbers .*got \(1.7, 2.2\)"),
        (FREE * 0.5, (0, 0), "free must hold 1 where a cell is open and 0 in walls"),
        (FREE[None], (0, 0), r"free must be a map \[H, W\], got shape \(1, 4, 6\)"),
        (FREE[0], (0, 0), r"free must be a map \[H, W\], got shape \(6,\)"),
    ],
)
def test_goals_and_maps_that_cannot_be_are_refused_in_one_line(kind, free, goal, names):
    with pytest.raises(InputError, match=names) as error:
        planner(kind).plan(free, goal)
    assert "\n" not in str(error.value)


def test_a_chunk_must_be_a_layer_at_least():
    with pytest.raises(InputError, match="chunk must be at least 1, got 0"):
        planner("dt_vin").plan(FREE, (0, 0), chunk=0)


@pytest.mark.parametrize(
    ("kind", "chunk"),
    [(kind, chunk) for kind in ("dt_vin", "vin", "residual", "dense", "highway", "highway_vin") for chunk in (2, 50)],
)
def test_a_plan_that_does_not_end_early_is_the_full_pass(kind, chunk):
    one, mazes = planner(kind, depth=6).eval(), maps(count=1)
    plan = one.plan(mazes.free[0], mazes.goal[0], depth=4, chunk=chunk)
    assert torch.equal(plan.actions, one.act(mazes.inputs(), depth=plan.layers)[0])
    assert plan.layers == 4
    assert plan.settled is False or chunk == 2


@pytest.mark.parametrize("kind", ["dt_vin", "vin", "residual", "highway", "highway_vin"])
def test_values_of_a_plan_in_chunks_are_those_of_the_full_pass(kind, monkeypatch):
    one, found = planner(kind, depth=14).double(), []
    iterate = one.iterate
    monkeypatch.setattr(one, "iterate", lambda *a, **k: (found.append((a[1], iterate(*a, **k))), found[-1][1])[1])
    plan = one.plan(FREE, (0, 0), chunk=5)
    chunk = 5 if one.block == 1 else 6  # whole blocks
    assert [layers for layers, _ in found] == [min(chunk, 14 - done) for done in range(0, plan.layers, chunk)]
    whole = iterate(one.model(one.encode(FREE, (0, 0))), plan.layers)
    torch.testing.assert_close(found[-1][1], whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["gppn", "dense"])
def test_planners_that_cannot_stop_on_the_way_plan_in_one_go(kind):
    one, mazes = planner(kind, depth=8), maps(count=1)
    plan = one.plan(mazes.free[0], mazes.goal[0])
    assert (plan.layers, plan.settled) == (8, False)
    assert torch.equal(plan.actions, one.act(mazes.inputs())[0])
    assert one.plan(mazes.free[0], mazes.goal[0], depth=6).layers == 6


def test_a_gppn_plans_deeper_than_it_was_made():
    one, mazes = planner("gppn"), maps(count=1)
    deeper = one.plan(mazes.free[0], mazes.goal[0], depth=7)
    assert deeper.layers == 7
    assert torch.equal(deeper.actions, one.act(mazes.inputs(), depth=7)[0])


@pytest.mark.parametrize("chunk", [5, 20])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_plan_ends_early_with_the_actions_of_the_full_depth(mechanism, chunk):
    mazes = generate(4, 11, mechanism=mechanism, decimation=(0.0, 0.0), seed=5)
    one = solver(mechanism, depth=600)
    full = one.act(mazes.inputs())
    for index, goal in enumerate(mazes.goal.tolist()):
        plan = one.plan(mazes.free[index], goal, chunk=chunk)
        longest = int(mazes.distances[index].max())
        assert plan.settled
        assert longest <= plan.layers < longest + 3 * chunk
        assert plan.layers % chunk == 0
        reachable = mazes.distances[index] > 0
        assert torch.equal(plan.actions[reachable], full[index][reachable])


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_plan_has_not_settled_where_the_depth_is_too_small(mechanism):
    mazes = generate(4, 11, mechanism=mechanism, decimation=(0.0, 0.0), seed=5)
    one = solver(mechanism, depth=300)
    for index, goal in enumerate(mazes.goal.tolist()):
        longest = int(mazes.distances[index].max())
        plan = one.plan(mazes.free[index], goal, depth=longest - 2, chunk=2)
        assert not plan.settled
        assert plan.layers == longest - 2


def test_a_goal_that_most_cells_cannot_reach_still_settles():
    free = torch.zeros(7, 9, dtype=torch.bool)
    free[1:-1, 1:4] = True
    free[1:-1, 5:8] = True
    plan = solver(depth=200).plan(free, (1, 1), chunk=10)
    assert plan.settled
    assert plan.layers < 200


def test_a_plan_whose_moves_may_fail_settles_on_shortest_paths():
    mazes = generate(3, 21, decimation=(0.0, 0.0), seed=5)
    one = solver(depth=1500, margin=1.5)
    for index, goal in enumerate(mazes.goal.tolist()):
        plan, reachable = one.plan(mazes.free[index], goal, chunk=10), mazes.distances[index] > 0
        assert plan.settled
        assert mazes.optimal[index].gather(0, plan.actions[None])[0][reachable].all()


def test_values_that_overflow_have_not_settled():
    one = planner("vin", depth=400)
    one.value_kernel.data.fill_(1.0)
    plan = one.plan(FREE, (0, 0))
    assert (plan.layers, plan.settled) == (400, False)


def test_own_mechanisms_work():
    rook = Mechanism("rook", (((0, 0, 1), (0, 0, -1), (0, 1, 0), (0, -1, 0)),), ("east", "west", "south", "north"))
    mazes = generate(3, 9, mechanism=rook, decimation=(0.0, 0.0), seed=0)
    assert score(solver(rook), mazes).success_rate == 1


@pytest.mark.parametrize("mechanism", ["news", "diffdrive"])
def test_padded_mazes_score_in_a_batch_as_alone(mechanism):
    small, large = (generate(3, size, mechanism=mechanism, seed=size) for size in (7, 11))
    one = solver(mechanism)
    together = score(one, Mazes.concatenate([small, large]))
    apart = score(one, small) + score(one, large)
    for name in ("starts", "successes", "optimal", "maze_starts", "maze_successes", "maze_optimal"):
        assert torch.equal(getattr(together, name), getattr(apart, name)), name
    short = score(one, Mazes.concatenate([small, large]), depth=6)
    assert 0 < short.success_rate < 1
    assert torch.equal(short.maze_optimal, (score(one, small, depth=6) + score(one, large, depth=6)).maze_optimal)


def test_a_planner_finds_ways_on_maps_that_are_not_square():
    mazes = generate(3, (7, 15), decimation=(0.0, 0.2), seed=0)
    assert score(solver(), mazes).optimality_rate == 1
    one = DTVIN("news", 4, DTVINConfig(hidden=4), generator=rng())
    assert one.act(mazes.inputs()).shape == (3, 1, 7, 15)
