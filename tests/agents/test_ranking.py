"""The learned order of nodes against the enumeration of all orders that keep the fixed edges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mindworks.agents.edges import EdgeSpace, between
from mindworks.agents.ranking import NodeRanking
from mindworks.errors import InputError


def ranking(fixed: list[tuple[int, int]], agents: list[list[int]]) -> NodeRanking:
    decision = sum(map(len, agents))
    return NodeRanking(EdgeSpace(decision + 1, fixed, between(agents, decision), decision))


FIXED = [
    ranking([], [[0], [1], [2]]),
    ranking([(0, 1)], [[0, 1], [2], [3]]),
    ranking([(0, 2), (1, 2)], [[0, 1, 2], [3]]),
    ranking([(2, 1), (1, 0)], [[0, 1, 2], [3]]),
]


def every(rank: NodeRanking) -> np.ndarray:
    """All rankings that keep the fixed edges, with the decision last."""
    nodes = rank.space.nodes
    orders = [(*places, nodes - 1) for places in itertools.permutations(range(nodes - 1))]
    return np.array([order for order in orders if all(order[s] < order[t] for s, t in rank.space.fixed)])


@pytest.mark.parametrize("rank", FIXED)
def test_likelihoods_sum_to_one_and_samples_follow_them(rank: NodeRanking) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=rank.space.nodes)
    orders = every(rank)
    p = np.exp(rank.log_likelihood(scores, orders))
    assert p.sum() == pytest.approx(1, abs=1e-12)
    drawn = rank.sample(scores, 20_000, rng)
    shares = np.array([(drawn == order).all(-1).mean() for order in orders])
    assert shares.sum() == 1
    assert (np.abs(shares - p) <= 5 * np.sqrt(p * (1 - p) / 20_000) + 1e-12).all()


def test_without_fixed_edges_it_is_the_product_of_plackett_and_luce() -> None:
    scores = np.log([1.0, 2.0, 5.0, 1.0])
    places = np.array([1, 0, 2, 3])  # node 1 first, then 0, then 2
    assert np.exp(FIXED[0].log_likelihood(scores, places)) == pytest.approx(2 / 8 * 1 / 6 * 1)


@pytest.mark.parametrize("rank", FIXED)
def test_the_score_is_the_gradient(rank: NodeRanking) -> None:
    scores = np.random.default_rng(1).normal(size=rank.space.nodes)
    orders = every(rank)
    for k, step in enumerate(1e-6 * np.eye(rank.space.nodes)):
        difference = (rank.log_likelihood(scores + step, orders) - rank.log_likelihood(scores - step, orders)) / 2e-6
        np.testing.assert_allclose(rank.score(scores, orders)[:, k], difference, atol=1e-8)


@pytest.mark.parametrize("rank", FIXED)
def test_allowed_edges_never_close_a_cycle(rank: NodeRanking) -> None:
    drawn = rank.sample(np.zeros(rank.space.nodes), 50, np.random.default_rng(2))
    allowed = rank.allowed(drawn)
    graphs = rank.space.graphs(np.ones_like(allowed), allowed)
    assert (graphs.included == allowed).all()
    assert allowed[:, -(rank.space.nodes - 1) :].all()  # everybody stands before the decision


def test_the_best_ranking_takes_the_highest_score_that_may_stand_next() -> None:
    rank = FIXED[1]
    scores = np.array([[0.0, 9, 1, 2, 99], [5, 9, 1, 2, -99]])
    assert rank.best(scores).tolist() == [[2, 3, 1, 0, 4], [0, 1, 3, 2, 4]]


def test_scores_of_the_decision_are_not_read() -> None:
    rank = FIXED[1]
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.0])
    other = scores + np.array([0, 0, 0, 0, 50])
    assert (rank.log_likelihood(scores, every(rank)) == rank.log_likelihood(other, every(rank))).all()
    assert (rank.score(other, every(rank))[:, -1] == 0).all()
    assert (rank.best(scores) == rank.best(other)).all()


def test_rows_are_independent_and_seeds_repeat() -> None:
    rank = FIXED[2]
    scores = np.random.default_rng(3).normal(size=(3, rank.space.nodes))
    drawn = rank.sample(scores, 4, np.random.default_rng(4))
    assert drawn.shape == (3, 4, rank.space.nodes)
    assert (drawn == rank.sample(scores, 4, np.random.default_rng(4))).all()
    score = rank.score(scores[:, None], drawn)
    for k in range(3):
        np.testing.assert_allclose(score[k], rank.score(scores[k], drawn[k]), atol=1e-14)


def test_bad_input_names_the_fault() -> None:
    with pytest.raises(InputError, match=r"scores must be \[..., 4\], got \[3\]"):
        FIXED[0].sample(np.zeros(3), 1, np.random.default_rng(0))
    with pytest.raises(InputError, match="count must be at least 1, got 0"):
        FIXED[0].sample(np.zeros(4), 0, np.random.default_rng(0))
