"""Batched minimisation on functions whose minima are known, with walls, and against single searches."""

from __future__ import annotations

import math

import pytest
import torch

from mindworks.errors import InputError
from mindworks.inference.bfgs import minimise


def with_gradient(value):
    """A function of `x[b, P]` and rows as `minimise` wants it."""

    def function(x: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.detach().requires_grad_(True)
        found = value(x, rows)
        (gradient,) = torch.autograd.grad(found[found.isfinite()].sum(), x)
        return found.detach(), gradient

    return function


def rosenbrock(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return (1 - x[:, 0]) ** 2 + 20 * (x[:, 1] - x[:, 0] ** 2) ** 2


def test_quadratics_of_every_row_reach_their_own_minimum_in_a_few_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 4, 4, generator=generator, dtype=torch.float64)
    hessian = root @ root.mT + torch.eye(4, dtype=torch.float64)
    center = 3 * torch.randn(6, 4, generator=generator, dtype=torch.float64)

    def quadratic(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        away = (x - center[rows]).unsqueeze(-1)
        return 0.5 * (away.mT @ hessian[rows] @ away).flatten() + rows

    found = minimise(with_gradient(quadratic), torch.zeros(6, 4, dtype=torch.float64))
    torch.testing.assert_close(found.x, center, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.value, torch.arange(6, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (found.slope <= 1e-8).all()
    assert (found.steps <= 60).all()


def test_a_curved_valley_and_rows_in_company() -> None:
    start = torch.tensor([[-1.2, 1.0], [0.3, -2.0], [1.0, 1.0]], dtype=torch.float64)
    together = minimise(with_gradient(rosenbrock), start)
    torch.testing.assert_close(together.x, torch.ones(3, 2, dtype=torch.float64), rtol=0, atol=1e-7)
    assert int(together.steps[2]) == 0  # it started at the minimum
    for i in range(3):
        alone = minimise(with_gradient(rosenbrock), start[i : i + 1])
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=0, atol=1e-12)


def test_a_wall_of_infinity_is_never_crossed() -> None:
    def walled(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, 0] > 0.5, (x[:, 0] - 0.7).square() + x[:, 1].square(), math.inf)

    start = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    assert float(minimise(with_gradient(walled), start).x[0, 0]) == pytest.approx(0.7, abs=1e-8)

    def blocked(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, 0] > 0.5, x[:, 0], math.inf) + x[:, 1].square()

    found = minimise(with_gradient(blocked), start)
    assert 0.5 < float(found.x[0, 0]) < 0.6
    assert float(found.slope) == pytest.approx(1)  # ended at the wall, and says so


def test_the_start_is_left_alone_and_bad_input_is_refused() -> None:
    start = torch.tensor([[0.3, -2.0]], dtype=torch.float64)
    minimise(with_gradient(rosenbrock), start, steps=3)
    assert start.tolist() == [[0.3, -2.0]]
    with pytest.raises(InputError, match=r"steps.*0"):
        minimise(with_gradient(rosenbrock), start, steps=0)
    with pytest.raises(InputError, match="start"):
        minimise(lambda x, rows: (x[:, 0] * math.inf, x), start)
