"""Edge distributions against enumeration, plain graph searches, and closed forms."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindworks.agents import edges as module
from mindworks.agents.edges import EdgeSpace, Graphs, between, probabilities
from mindworks.errors import InputError


def two_way() -> EdgeSpace:
    """Two nodes that may hear each other, and a decision that may hear both."""
    return EdgeSpace(3, [], [(0, 1), (1, 0), (0, 2), (1, 2)], 2)


def swarm(agents: int) -> EdgeSpace:
    return EdgeSpace(agents + 1, [], between([[k] for k in range(agents)], agents), agents)


@st.composite
def spaces(draw: st.DrawFn, most: int = 6) -> EdgeSpace:
    """Small spaces in which cycles are common: up to five nodes, up to `most` potential edges, some fixed ones."""
    nodes = draw(st.integers(3, 5))
    pairs = [(s, t) for s in range(nodes - 1) for t in range(nodes) if s != t]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, min_size=1, max_size=most + 2))
    fixed = [pair for pair in chosen[most:] if pair[0] < pair[1]]
    order = draw(st.permutations(range(len(chosen[:most]))))
    return EdgeSpace(nodes, fixed, chosen[:most], nodes - 1, order)


def logits_for(space: EdgeSpace, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=len(space))


def reaches(pairs: list[tuple[int, int]], start: int, end: int) -> bool:
    """A search over a list of pairs, which knows nothing of bits."""
    seen, todo = {start}, [start]
    while todo:
        node = todo.pop()
        new = {t for s, t in pairs if s == node} - seen
        seen |= new
        todo += new
    return end in seen


def plainly(space: EdgeSpace, wanted: np.ndarray) -> tuple[list[bool], list[bool]]:
    """One graph, edge by edge, as the published code builds it."""
    pairs = [tuple(pair) for pair in space.fixed.tolist()]
    included, feasible = [False] * len(space), [False] * len(space)
    for edge in space.order:
        source, target = space.potential[edge].tolist()
        feasible[edge] = not reaches(pairs, target, source)
        included[edge] = feasible[edge] and bool(wanted[edge])
        if included[edge]:
            pairs.append((source, target))
    return included, feasible


def test_probabilities_of_two_nodes_in_closed_form() -> None:
    space = two_way()
    p = np.array([0.3, 0.6, 0.9, 0.2])
    logits = np.log(p / (1 - p))
    for first, second, wanted in ((1, 0, 0.3), (0, 1, 0.7 * 0.6), (0, 0, 0.7 * 0.4)):
        included = np.array([first, second, 1, 0], bool)
        graphs = Graphs(included, space.feasible(included))
        assert graphs.feasible.tolist() == [True, not first, True, True]
        # the edge from node 1 to the decision was feasible and is not there: it counts, with 1 - p
        assert np.exp(space.log_likelihood(logits, graphs)) == pytest.approx(wanted * 0.9 * 0.8)


@settings(max_examples=30, deadline=None)
@given(spaces(), st.integers(0, 10**6))
def test_probabilities_of_all_graphs_sum_to_one(space: EdgeSpace, seed: int) -> None:
    graphs = space.enumerate()
    logits = logits_for(space, seed)
    assert np.exp(space.log_likelihood(logits, graphs)).sum() == pytest.approx(1, abs=1e-12)
    assert len(np.unique(graphs.included, axis=0)) == len(graphs.included)
    # the product that the paper prints leaves out the edges that were not included
    printed = (np.log(probabilities(logits)) * graphs.included).sum(-1)
    if graphs.feasible.any() and len(graphs.included) > 1:
        assert np.exp(printed).sum() > 1


@settings(max_examples=25, deadline=None)
@given(spaces(), st.integers(0, 10**6))
def test_the_gradient_of_the_mean_utility_is_that_of_the_enumeration(space: EdgeSpace, seed: int) -> None:
    graphs = space.enumerate()
    rng = np.random.default_rng(seed)
    logits, utility = rng.normal(size=len(space)), rng.normal(size=len(graphs.included))

    def value(x: np.ndarray) -> float:
        return float(np.exp(space.log_likelihood(x, graphs)) @ utility)

    p = np.exp(space.log_likelihood(logits, graphs))
    exact = (p * utility) @ space.score(logits, graphs)
    step = 1e-6 * np.eye(len(space))
    differences = [(value(logits + d) - value(logits - d)) / 2e-6 for d in step]
    np.testing.assert_allclose(exact, differences, atol=1e-8)


def test_samples_come_as_often_as_their_likelihood_says() -> None:
    space = swarm(2).shuffled(np.random.default_rng(3))
    logits = logits_for(space)
    drawn = space.sample(logits, 40_000, np.random.default_rng(0))
    everything = space.enumerate()
    for included, feasible in zip(*everything, strict=True):
        p = np.exp(space.log_likelihood(logits, Graphs(included, feasible)))
        share = (drawn.included == included).all(-1).mean()
        assert abs(share - p) <= 5 * np.sqrt(p * (1 - p) / 40_000)


@settings(max_examples=30, deadline=None)
@given(spaces(12), st.integers(0, 10**6))
def test_graphs_are_those_of_a_plain_search(space: EdgeSpace, seed: int) -> None:
    wanted = np.random.default_rng(seed).random((4, len(space))) < 0.7
    for graphs in (space.graphs(wanted), Graphs(*space._add(wanted, None))):
        for row, included, feasible in zip(wanted, *graphs, strict=True):
            assert (included.tolist(), feasible.tolist()) == plainly(space, row)


def test_sets_of_nodes_take_several_words() -> None:
    nodes = 150
    rng = np.random.default_rng(0)
    pairs = list({(int(s), int(t)) for s, t in rng.integers(0, nodes - 1, (700, 2)) if s != t})
    pairs += [(node, nodes - 1) for node in range(0, nodes - 1, 7)]
    space = EdgeSpace(nodes, pairs[:40], pairs[40:], nodes - 1) if acyclic(pairs[:40]) else None
    assert space is not None
    wanted = np.random.default_rng(1).random((2, len(space))) < 0.4
    numpy_graphs = Graphs(*space._add(wanted, None))
    for graphs in (space.graphs(wanted), numpy_graphs):
        for row, included, feasible in zip(wanted, *graphs, strict=True):
            assert (included.tolist(), feasible.tolist()) == plainly(space, row)
    assert (~numpy_graphs.feasible).sum() > 20
    links = space.edges(numpy_graphs.included[0])
    wanted_nodes = [reaches(links, node, nodes - 1) for node in range(nodes)]
    assert space.matters(numpy_graphs.included)[0].tolist() == wanted_nodes
    assert 20 < sum(wanted_nodes) < nodes


def acyclic(pairs: list[tuple[int, int]]) -> bool:
    return not any(reaches(pairs, target, source) for source, target in pairs)


@pytest.mark.parametrize("fallback", [False, True])
def test_allowed_edges_bound_what_is_feasible(fallback: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if fallback:
        monkeypatch.setattr(module, "_kernels", lambda: None)
    space = swarm(3)
    rng = np.random.default_rng(0)
    allowed = rng.random((5, len(space))) < 0.5
    graphs = space.graphs(np.ones((5, len(space)), bool), allowed)
    assert not (graphs.feasible & ~allowed).any()
    assert (graphs.included == graphs.feasible).all()
    free = space.graphs(np.ones((5, len(space)), bool), np.ones((5, len(space)), bool))
    assert (free.included == space.full()).all()


def test_kernel_and_numpy_agree_on_many_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    space = swarm(14).shuffled(np.random.default_rng(0))
    fast = space.sample(logits_for(space), (5, 40), np.random.default_rng(1))
    monkeypatch.setattr(module, "_kernels", lambda: None)
    plain = space.sample(logits_for(space), (5, 40), np.random.default_rng(1))
    assert (fast.included == plain.included).all()
    assert (fast.feasible == plain.feasible).all()
    assert fast.included.shape == (5, 40, 196)


def test_rows_of_logits_are_independent_of_each_other() -> None:
    space = swarm(3)
    logits = np.stack([logits_for(space, k) for k in range(4)])
    graphs = space.sample(logits, 6, np.random.default_rng(0))
    likelihood = space.log_likelihood(logits[:, None], graphs)
    score = space.score(logits[:, None], graphs)
    for k in range(4):
        one = Graphs(graphs.included[k], graphs.feasible[k])
        np.testing.assert_array_equal(likelihood[k], space.log_likelihood(logits[k], one))
        np.testing.assert_array_equal(score[k], space.score(logits[k], one))
        np.testing.assert_array_equal(space.feasible(one.included), one.feasible)


def test_certain_edges_have_finite_likelihoods() -> None:
    space = two_way()
    included = np.array([True, False, True, True])
    graphs = Graphs(included, space.feasible(included))
    assert space.log_likelihood(np.array([800.0, 0, 800, 800]), graphs) == 0
    assert space.log_likelihood(np.array([-800.0, 0, 800, 800]), graphs) == -800
    assert probabilities(np.array([-800.0, 0, 800])).tolist() == [0, 0.5, 1]


def test_thresholded_graph_is_strict_and_keeps_the_order() -> None:
    space = two_way()
    assert space.threshold(np.zeros(4)).tolist() == [False] * 4
    assert space.threshold(np.full(4, 1e-9)).tolist() == [True, False, True, True]
    other = EdgeSpace(3, [], space.potential.tolist(), 2, [1, 0, 2, 3])
    assert other.full().tolist() == [False, True, True, True]
    assert space.threshold(np.array([-1.0, 1, 1, -1]), above=0.7).tolist() == [False, True, True, False]


def test_a_shuffled_order_gives_late_edges_a_chance() -> None:
    space = swarm(3)
    turns = [space.shuffled(np.random.default_rng(seed)).full() for seed in range(30)]
    share = np.mean(turns, 0)
    assert space.full()[:2].all()  # the first two edges of the list always win
    assert ((share[:6] > 0.2) & (share[:6] < 0.8)).all()
    assert (share[6:] == 1).all()  # nothing leaves the decision


def test_nodes_without_a_path_to_the_decision_do_not_matter() -> None:
    space = EdgeSpace(5, [(0, 1)], [(1, 2), (2, 4), (3, 1), (0, 4)], 4)
    included = np.array([[1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 1, 0]], bool)
    wanted = [[True, True, True, False, True], [True, False, True, False, True], [False, False, False, False, True]]
    assert space.matters(included).tolist() == wanted
    assert space.edges(included[0]) == [(0, 1), (1, 2), (2, 4)]
    assert space.adjacency(included)[1].sum() == 4


def test_potential_edges_of_the_paper() -> None:
    pairs = between([[0, 1], [2]], 3)
    assert pairs == [(0, 2), (1, 2), (2, 0), (2, 1), (0, 3), (1, 3), (2, 3)]
    assert [len(swarm(k)) for k in (2, 6, 14)] == [4, 36, 196]  # 1 + 1, 3 + 3 and 7 + 7 agents of one node


def test_the_same_seed_gives_the_same_graphs() -> None:
    space = swarm(3)
    first, second = (space.sample(np.zeros(len(space)), 9, np.random.default_rng(5)) for _ in range(2))
    assert (first.included == second.included).all()
    assert not (first.included == space.sample(np.zeros(len(space)), 9, np.random.default_rng(6)).included).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, [], [], 0), "nodes must be at least 1, got 0"),
        ((3, [], [], 3), "decision must be a node below 3, got 3"),
        ((3, [], [(0, 3)], 2), r"potential must join nodes below 3, got \(0, 3\)"),
        ((3, [(-1, 0)], [], 2), r"fixed must join nodes below 3, got \(-1, 0\)"),
        ((3, [], [(1, 1)], 2), r"two nodes, got \(1, 1\)"),
        ((3, [(0, 1)], [(0, 1)], 2), r"once, got \(0, 1\) twice"),
        ((3, [], [(2, 0)], 2), r"leave the decision 2, got \(2, 0\)"),
        ((4, [(0, 1), (1, 2), (2, 0)], [], 3), r"acyclic, got \(2, 0\)"),
        ((3, [], [(0, 1)], 2, [1]), "order must be a permutation of 1 edges"),
    ],
)
def test_bad_spaces_name_the_fault(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EdgeSpace(*arguments)


def test_bad_arrays_name_the_fault() -> None:
    space = two_way()
    with pytest.raises(InputError, match=r"logits must be \[..., 4\], got \[3\]"):
        space.sample(np.zeros(3), 1, np.random.default_rng(0))
    with pytest.raises(InputError, match="count must be at least 1, got 0"):
        space.sample(np.zeros(4), 0, np.random.default_rng(0))
    with pytest.raises(InputError, match="wanted must be bool, got float64"):
        space.graphs(np.zeros(4))
    with pytest.raises(InputError, match=r"wanted must be \[..., 4\], got \[5\]"):
        space.graphs(np.zeros(5, bool))
    with pytest.raises(InputError, match="got one with a cycle"):
        space.feasible(np.array([True, True, False, False]))
    with pytest.raises(InputError, match="above must be in"):
        space.threshold(np.zeros(4), above=1)
    with pytest.raises(InputError, match="at most 16 edges can be enumerated, got 36"):
        swarm(6).enumerate()


def test_every_order_has_its_own_likelihood() -> None:
    # the same graph is drawn with another probability where another edge had the first turn
    logits = np.array([0.3, -0.2, 0, 0])
    found = set()
    for order in itertools.permutations(range(2)):
        space = EdgeSpace(3, [], [(0, 1), (1, 0), (0, 2), (1, 2)], 2, [*order, 2, 3])
        included = np.array([True, False, True, True])
        found.add(round(float(space.log_likelihood(logits, Graphs(included, space.feasible(included)))), 12))
    assert len(found) == 2


def test_no_torch_on_the_way() -> None:
    script = "import sys, mindworks.agents.edge_optimizer, mindworks.agents.voters; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
