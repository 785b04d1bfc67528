"""Reward-weighted regression from samples: episodes of the current policy, then a weighted maximum likelihood fit.

N episodes, T steps of each, S states, A actions, F features, `...` leading dimensions of the policies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mindworks.core.categorical import CategoricalRows
from mindworks.core.finite_mdp import MDP
from mindworks.errors import require
from mindworks.tabular.rwr import RWRRun, iterate, require_policy, require_rewards

Generators = torch.Generator | Sequence[torch.Generator]
Fit = Callable[[Tensor, Tensor], Tensor]


class SampledRWR:
    """RWR that sees the process only through episodes: `run(policy, iterations, generator)`.

    Every iteration plays `episodes` episodes of `horizon` steps from `start[..., S]`. Step t counts with discount^t,
    so that states weigh as the policy's discounted visits do, times its discounted return until the episode ends. By
    default the horizon is where discount^t falls below 1e-6. `fit(weights, policy)` makes the next policy out of
    summed weights `[..., S, A]`: `tabular_fit` for tables, a `SoftmaxFit` for function approximation.
    """

    def __init__(
        self, mdp: MDP, start: Tensor, *, episodes: int, horizon: int | None = None, fit: Fit | None = None
    ) -> None:
        require_rewards(mdp)
        require(episodes >= 1, f"episodes must be at least 1, got {episodes}")
        require(horizon is None or horizon >= 1, f"horizon must be at least 1, got {horizon}")
        require(start.shape[-1] == mdp.num_states, f"start must be [..., S={mdp.num_states}], got {list(start.shape)}")
        off = float((start.sum(-1) - 1).abs().max())
        require(
            float(start.min()) >= 0 and off <= 1e-9, f"start must hold probabilities that sum to 1, off by {off:.3g}"
        )
        if horizon is None:
            horizon = 1 if mdp.discount == 0 else math.ceil(math.log(1e-6) / math.log(mdp.discount))
        self.mdp, self.start, self.episodes, self.horizon = mdp, start, episodes, horizon
        self.fit: Fit = tabular_fit if fit is None else fit

    @property
    def truncation(self) -> float:
        """A bound on the error that ending episodes makes: on the expected weights, summed over states and actions.

        Steps t < T lose at most discount^t discount^(T - t) r_max / (1 - discount) each; steps from T on lose
        discount^t r_max / (1 - discount).
        """
        discount, steps = self.mdp.discount, self.horizon
        lost = (steps + 1 / (1 - discount)) * discount**steps
        return lost * float(self.mdp.reward.max()) / (1 - discount)

    def weights(self, policy: Tensor, generator: Generators) -> Tensor:
        """Weights `[..., S, A]` from fresh episodes, per episode: `rwr_weights` but for chance and truncation.

        `generator` is one, or one for each index of the policy's first dimension: then a seed's draws do not depend
        on the others.
        """
        mdp, actions = self.mdp, self.mdp.num_actions
        leading = torch.broadcast_shapes(policy.shape[:-2], mdp.reward.shape[:-2], self.start.shape[:-1])
        shape, choose = (*leading, self.episodes), CategoricalRows(policy)
        state = torch.zeros(shape, dtype=torch.long)
        state = CategoricalRows(self.start.unsqueeze(-2)).draw(state, _uniform(shape, generator))
        visited = []
        for _ in range(self.horizon):
            action = choose.draw(state, _uniform(shape, generator))
            visited.append((state * actions + action).int())  # half the memory of what the draws return
            state = mdp.draw_next(state, action, _uniform(shape, generator))
        reward = mdp.reward.flatten(-2).expand(*leading, -1)
        total = torch.zeros_like(reward)
        coming = torch.zeros(shape, dtype=reward.dtype)
        for t in reversed(range(self.horizon)):
            pair = visited[t].long()
            coming = reward.gather(-1, pair) + mdp.discount * coming
            total = total.scatter_add(-1, pair, mdp.discount**t * coming)
        return (total / self.episodes).unflatten(-1, mdp.reward.shape[-2:])

    def step(self, policy: Tensor, generator: Generators) -> Tensor:
        """The next policy `[..., S, A]`, from fresh episodes."""
        return self.fit(self.weights(policy, generator), policy)

    def run(self, policy: Tensor, iterations: int, generator: Generators) -> RWRRun:
        """Iterate from `policy[..., S, A]`; the run's values are computed exactly, to judge what was learned."""
        require_policy(self.mdp, policy)
        return iterate(self.mdp, policy, iterations, lambda p: (self.step(p, generator), self.mdp.state_value(p)))


def tabular_fit(weights: Tensor, policy: Tensor) -> Tensor:
    """Weighted maximum likelihood for a table: weights `[..., S, A]` over their sum; rows without any keep `policy`."""
    total = weights.sum(-1, keepdim=True)
    return torch.where(total > 0, weights / total, policy)


class LinearSoftmax(nn.Module):
    """Logits `[..., S, A]` linear in features `[S, F]`: a matrix for each of the `leading` dimensions, 0 at first."""

    def __init__(self, features: int, actions: int, leading: Sequence[int] = (), dtype: torch.dtype = torch.float64):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(*leading, features, actions, dtype=dtype))

    def forward(self, features: Tensor) -> Tensor:
        """Logits of all states."""
        return features @ self.weight


class SoftmaxFit:
    """Weighted maximum likelihood for a softmax policy with parameters: a `fit` for `SampledRWR`.

    `model` turns `features[S, F]` into logits `[..., S, A]`. A call maximises sum_{s,a} w(s, a) log pi(a|s) from where
    the last one ended, by at most `steps` iterations of L-BFGS, and returns the policy as a table.
    """

    def __init__(self, model: nn.Module, features: Tensor, *, steps: int = 100) -> None:
        require(steps >= 1, f"steps must be at least 1, got {steps}")
        self.model, self.features, self.steps = model, features, steps

    def policy(self) -> Tensor:
        """The policy of the model as it stands, `[..., S, A]`."""
        with torch.no_grad():
            return self.model(self.features).softmax(-1)

    def __call__(self, weights: Tensor, policy: Tensor) -> Tensor:
        """The policy `[..., S, A]` of the model, fitted to `weights[..., S, A]`; `policy` is not needed here."""
        total = weights.sum((-2, -1), keepdim=True)
        share = weights / torch.where(total > 0, total, 1.0)  # every problem of a batch counts the same
        optimizer = torch.optim.LBFGS(
            self.model.parameters(),
            max_iter=self.steps,
            max_eval=2 * self.steps,
            tolerance_grad=1e-10,
            tolerance_change=1e-14,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            logits = self.model(self.features)
            require(logits.shape == share.shape, f"model must make {list(share.shape)}, got {list(logits.shape)}")
            value = -(share * logits.log_softmax(-1)).sum()
            value.backward()
            return value

        optimizer.step(loss)
        return self.policy()


def _uniform(shape: tuple[int, ...], generator: Generators) -> Tensor:
    if isinstance(generator, torch.Generator):
        return torch.rand(shape, generator=generator, dtype=torch.float64)
    require(
        len(shape) > 1 and len(generator) == shape[0],
        f"generator must be one, or one for each of the policy's first dimension {shape[0]}, got {len(generator)}",
    )
    return torch.stack([torch.rand(shape[1:], generator=each, dtype=torch.float64) for each in generator])
