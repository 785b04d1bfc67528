"""What POIS climbs: an importance sampling estimate of the return, minus a penalty for what it might be wrong by.

S seeds, K batches of N episodes each (one behaviour distribution per batch), M = K * N episodes in all, T steps, G
groups of parameters. `valid[S, K]` says which batches take part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from mindworks.core import importance
from mindworks.core.policy import Policy
from mindworks.core.population import MLP

Estimator = Literal["plain", "self-normalized", "regression", "per-decision", "self-normalized per-decision"]
Penalty = Literal["divergence", "ess", "none"]
Scale = Literal["max", "std"]


@dataclass(frozen=True)
class Bound:
    """The surrogate at some parameters, each entry `[S, G]`: value = estimate - penalty, in units of the return."""

    value: Tensor
    estimate: Tensor
    penalty: Tensor
    log_divergence: Tensor
    ess: Tensor


@dataclass(frozen=True)
class Returns:
    """What the episodes earned: returns `[S, M]`, which of them take part, and how large the penalty's scale is."""

    values: Tensor
    valid: Tensor
    center: bool
    scale_kind: Scale

    @cached_property
    def size(self) -> Tensor:
        """How many episodes take part, `[S]`."""
        return self.valid.sum(-1).to(self.values)

    @cached_property
    def offset(self) -> Tensor:
        """What is taken off every return before anything else, `[S]`."""
        mean = torch.where(self.valid, self.values, 0.0).sum(-1) / self.size
        return mean if self.center else torch.zeros_like(mean)

    @cached_property
    def centered(self) -> Tensor:
        """Returns minus the offset `[S, M]`, 0 for those that take no part."""
        return torch.where(self.valid, self.values - self.offset.unsqueeze(-1), 0.0)

    @cached_property
    def scale(self) -> Tensor:
        """The largest absolute value `[S]` of the returns as they are estimated, or their standard deviation."""
        if self.scale_kind == "max":
            return self.centered.abs().amax(-1)
        mean = self.centered.sum(-1, keepdim=True) / self.size.unsqueeze(-1)
        return (torch.where(self.valid, self.centered - mean, 0.0).square().sum(-1) / self.size).sqrt()


@dataclass(frozen=True)
class Criterion:
    """How weights and divergences become a bound; `delta` is one number, or one per seed, `[S, 1]`."""

    estimator: Estimator
    penalty: Penalty
    delta: float | Tensor

    def bound(self, log_weights: Tensor, estimate: Tensor, log_divergence: Tensor, returns: Returns) -> Bound:
        """The bound from weights of whole episodes `[S, G, M]`, an estimate and log d_2 `[S, G]`."""
        ess = importance.effective_sample_size(log_weights)
        size, scale = returns.size.unsqueeze(-1), returns.scale.unsqueeze(-1)
        # d_2 / N is the variance that the divergence promises, 1 / ESS the one that the weights show
        spread = {"divergence": log_divergence, "ess": size.log() - ess.log(), "none": None}[self.penalty]
        cost = torch.zeros_like(estimate)
        if spread is not None:
            cost = importance.penalty(spread, size=size, scale=scale, delta=self.delta)
        value = torch.where(torch.isfinite(log_divergence), estimate - cost, -torch.inf)
        return Bound(value, estimate, cost, log_divergence, ess)

    def estimate(self, log_weights: Tensor, returns: Returns) -> Tensor:
        """The mean of the returns under the target `[S, G]`, from weights of whole episodes `[S, G, M]`."""
        values, count = returns.centered.unsqueeze(1), returns.size.unsqueeze(-1)
        if self.estimator == "plain":
            return importance.mean_estimate(log_weights, values, count)
        if self.estimator == "regression":
            return importance.regression_estimate(log_weights, values, count)
        return importance.self_normalized_estimate(log_weights, values)


class ParameterSurrogate:
    """The bound for a Gaussian hyperpolicy: one draw of the policy's parameters per episode.

    rho `[S, 2 P]` holds P means, then P log standard deviations. theta: `[S, K, N, P]`; behaviors: `[S, K, 2 P]`.
    With the `network` whose parameters they are, every neuron of it is a group: it has weights, a divergence and a
    bound of its own, as if the others stood still.
    """

    def __init__(
        self,
        theta: Tensor,
        behaviors: Tensor,
        valid: Tensor,
        returns: Returns,
        criterion: Criterion,
        network: MLP | None = None,
    ) -> None:
        self.theta, self.behaviors, self.returns, self.criterion = theta.flatten(1, 2), behaviors, returns, criterion
        self.network = network
        one = torch.zeros(theta.shape[-1], dtype=torch.int64)
        self.group = (one if network is None else neurons(network)).repeat(2)
        self.shares = (valid.to(theta) / valid.sum(-1, keepdim=True)).unsqueeze(1)
        each = torch.stack([self._log_density(rho) for rho in behaviors.unbind(1)], -2)  # [S, G, K, M]
        self.log_mixture = -importance.balance_log_weights(torch.zeros_like(each[..., 0, :]), each, self.shares)

    def _log_density(self, rho: Tensor) -> Tensor:
        """log density of every theta under rho `[S, 2 P]`, up to a constant, per group: `[S, G, M]`."""
        mean, log_std = rho.unsqueeze(1).chunk(2, -1)
        return self._per_group(-0.5 * ((self.theta - mean) * (-log_std).exp()).square() - log_std).mT

    def _per_group(self, terms: Tensor) -> Tensor:
        """Sums `[S, X, G]` of `terms[S, X, P]`."""
        if self.network is None:
            return terms.sum(-1, keepdim=True)
        return torch.cat([weight.sum(-1) + bias for weight, bias in self.network.unflatten(terms)], -1)

    def bound(self, rho: Tensor) -> Bound:
        """The bound at `rho[S, 2 P]`."""
        log_weights = self._log_density(rho) - self.log_mixture
        log_weights = torch.where(self.returns.valid.unsqueeze(1), log_weights, -torch.inf)
        mean, log_std = rho.unsqueeze(1).chunk(2, -1)
        mean_k, log_std_k = self.behaviors.chunk(2, -1)
        apart = second_order((mean - mean_k).square(), log_std, log_std_k)  # [S, K, P]
        log_divergence = importance.mixture_log_divergence(self._per_group(apart).mT, self.shares)
        estimate = self.criterion.estimate(log_weights, self.returns)
        return self.criterion.bound(log_weights, estimate, log_divergence, self.returns)

    def value(self, rho: Tensor) -> Tensor:
        """The bound's value `[S, G]`."""
        return self.bound(rho).value

    def natural(self, rho: Tensor, gradient: Tensor) -> Tensor:
        """F^-1 g with the exact F of a diagonal Gaussian: exp(-2 log std) for a mean, 2 for a log std."""
        on_mean, on_log_std = gradient.chunk(2, -1)
        return torch.cat([on_mean * (2 * rho.chunk(2, -1)[1]).exp(), on_log_std / 2], -1)


@dataclass(frozen=True)
class Steps:
    """What the episodes of K batches did: `[S, K, N, T, ...]`, rewards discounted, `mask` False after the end."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    mask: Tensor


class ActionSurrogate:
    """The bound for a stochastic policy, Gaussian or categorical, that acts at every step.

    rho `[S, P]` are the policy's parameters, behaviors `[S, K, P]` those of the K batches. The divergence of two
    policies' episodes is estimated from the states of the behaviour's own episodes: the mean over them of
    exp(sum_t D_2(new(.|s_t) || old(.|s_t))). It is that of whole episodes for the per-decision estimators too, which
    can only make their penalty larger than it need be.
    """

    def __init__(
        self,
        policy: Policy,
        steps: Steps,
        behaviors: Tensor,
        valid: Tensor,
        returns: Returns,
        criterion: Criterion,
        *,
        damping: float,
        iterations: int,
    ) -> None:
        self.policy, self.steps, self.returns, self.criterion = policy, steps, returns, criterion
        self.behaviors, self.valid, self.damping, self.iterations = behaviors, valid, damping, iterations
        self.shape = steps.mask.shape
        self.group = torch.zeros(behaviors.shape[-1], dtype=torch.int64)
        self.flat_obs = steps.observations.flatten(1, 3)
        self.flat_actions = steps.actions.flatten(1, 3)
        self.mask = steps.mask.flatten(1, 2)  # [S, M, T]
        self.shares = valid.to(behaviors) / valid.sum(-1, keepdim=True)
        self.per_decision = "per-decision" in criterion.estimator
        heads = [self._head(rho) for rho in behaviors.unbind(1)]
        logs = [self._log_probs(rho, head) for rho, head in zip(behaviors.unbind(1), heads, strict=True)]
        self.log_mixture = self._mixture(torch.stack(logs, 1))
        own = [head.unflatten(1, self.shape[1:])[:, k] for k, head in enumerate(heads)]
        self.own_head = torch.stack(own, 1)  # [S, K, N, T, A], each batch under the policy that made it

    def _head(self, rho: Tensor) -> Tensor:
        """What the distributions of the actions depend on, `[S, M * T, A]`: means, or log probabilities of each."""
        outputs = self.policy.outputs(rho, self.flat_obs)
        if self.policy.continuous:
            return outputs
        logits = self.policy.logits(outputs)
        return logits - logits.logsumexp(-1, keepdim=True)  # a third of the time of log_softmax over a few numbers

    def _log_probs(self, rho: Tensor, head: Tensor) -> Tensor:
        """log probability of every action, 0 after the end: `[S, M, T]`."""
        if self.policy.continuous:
            log_prob = self.policy.log_prob_of(rho, head, self.flat_actions)
        else:
            log_prob = head.gather(-1, self.flat_actions.unsqueeze(-1)).squeeze(-1)
        return torch.where(self.mask, log_prob.view(self.mask.shape), 0.0)

    def _mixture(self, logs: Tensor) -> Tensor:
        """log density of every episode (or of its beginnings) under the mixture, `[S, M]` or `[S, M, T]`."""
        whole = logs.cumsum(-1).flatten(2) if self.per_decision else logs.sum(-1)  # [S, K, M (* T)]
        mixed = -importance.balance_log_weights(torch.zeros_like(whole[:, 0]), whole, self.shares)
        return mixed.view(logs[:, 0].shape) if self.per_decision else mixed

    def bound(self, rho: Tensor) -> Bound:
        """The bound at `rho[S, P]`; G is 1."""
        head = self._head(rho)
        logs = self._log_probs(rho, head)
        takes_part = self.returns.valid
        if self.per_decision:
            each = logs.cumsum(-1) - self.log_mixture
            each = torch.where(takes_part.unsqueeze(-1), each, -torch.inf)
            normalize = self.criterion.estimator.startswith("self-normalized")
            rewards = self.steps.rewards.flatten(1, 2)
            estimate = importance.per_decision_estimate(each, rewards, normalize=normalize, count=self.returns.size)
            estimate = (estimate - self.returns.offset).unsqueeze(-1)
            log_weights = each[..., -1].unsqueeze(1)
        else:
            log_weights = torch.where(takes_part, logs.sum(-1) - self.log_mixture, -torch.inf).unsqueeze(1)
            estimate = self.criterion.estimate(log_weights, self.returns)
        return self.criterion.bound(log_weights, estimate, self._log_divergence(rho, head), self.returns)

    def _log_divergence(self, rho: Tensor, head: Tensor) -> Tensor:
        """An estimate of log d_2 of the episodes, `[S, 1]`."""
        new = head.unflatten(1, self.shape[1:])
        if not self.policy.continuous:
            apart = (2 * new - self.own_head).logsumexp(-1)  # D_2 = log sum p^2 / q
        else:
            log_std = self.policy.split(rho)[1][:, None, None, None]
            own = self.policy.split(self.behaviors)[1][:, :, None, None]
            apart = second_order((new - self.own_head).square(), log_std, own).sum(-1)
        episodes = torch.where(self.steps.mask, apart, 0.0).sum(-1)  # [S, K, N]
        outside = torch.isinf(episodes).any(-1)  # logsumexp has no gradient at infinity
        mean = torch.where(outside.unsqueeze(-1), 0.0, episodes).logsumexp(-1) - math.log(self.shape[2])
        mean = torch.where(outside, torch.inf, mean)
        return importance.mixture_log_divergence(mean, self.shares).unsqueeze(-1)

    def value(self, rho: Tensor) -> Tensor:
        """The bound's value `[S, 1]`."""
        return self.bound(rho).value

    def natural(self, rho: Tensor, gradient: Tensor) -> Tensor:
        """(F + damping)^-1 g by conjugate gradients, or g of a seed for which that does not point uphill.

        F is the Fisher information of an episode at rho, in the states of the behaviours' episodes.
        """
        counts = (self.valid[:, :, None, None] & self.steps.mask).flatten(1).unsqueeze(-1) / self.returns.size[
            :, None, None
        ]
        fisher = self._fisher(rho, counts)
        solution = conjugate_gradients(lambda v: fisher(v) + self.damping * v, gradient, self.iterations)
        uphill = (solution * gradient).sum(-1, keepdim=True) > 0
        return torch.where(uphill, solution, gradient)

    def _fisher(self, rho: Tensor, counts: Tensor) -> Callable[[Tensor], Tensor]:
        """v -> F v = J^T M J v, `[S, P]`: J the derivative of the outputs, M the Fisher information of the head."""
        continuous = self.policy.continuous
        with torch.enable_grad():
            leaf = rho.detach().requires_grad_()
            outputs = self.policy.outputs(leaf, self.flat_obs)
            outputs = outputs if continuous else self.policy.logits(outputs)
            probe = torch.zeros_like(outputs).requires_grad_()
            (pulled,) = torch.autograd.grad(outputs, leaf, probe, create_graph=True)  # J^T probe, linear in the probe
        precision = (-2 * self.policy.split(rho)[1]).exp().unsqueeze(1)
        p = outputs.detach().softmax(-1)

        def product(vector: Tensor) -> Tensor:
            (moved,) = torch.autograd.grad(pulled, probe, vector, retain_graph=True)  # J v
            metric = moved * precision if continuous else p * (moved - (p * moved).sum(-1, keepdim=True))
            (through,) = torch.autograd.grad(outputs, leaf, metric * counts, retain_graph=True)
            if not continuous:
                return through
            weights, log_std = self.policy.split(vector)
            return through + torch.cat([torch.zeros_like(weights), 2 * counts.sum((1, 2)).unsqueeze(-1) * log_std], -1)

        return product


def second_order(squared_shift: Tensor, log_std_p: Tensor, log_std_q: Tensor) -> Tensor:
    """D_2(P || Q) of two normal distributions, elementwise; +inf where the variance of P is twice Q's or more.

    What `divergences.renyi_normal` computes, without the digits that it keeps where P and Q are almost equal. This
    stands in the innermost loop, and takes a seventh of the time for the few numbers of a hyperpolicy (2026-11-23).
    """
    mixed = 2 * (2 * log_std_q).exp() - (2 * log_std_p).exp()
    defined = mixed > 0
    mixed = torch.where(defined, mixed, 1.0)
    return torch.where(defined, squared_shift / mixed - mixed.log() / 2 - log_std_p + 2 * log_std_q, torch.inf)


def conjugate_gradients(product: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """x `[S, P]` with A x = b for symmetric positive definite A given as `product(v) = A v`, each seed by itself."""
    x, residual, direction = torch.zeros_like(b), b, b
    norm = residual.square().sum(-1, keepdim=True)
    for _ in range(iterations):
        if not (norm > 1e-20).any():
            break
        along = product(direction)
        curvature = (direction * along).sum(-1, keepdim=True)
        length = torch.where(norm > 1e-20, norm / torch.where(curvature > 0, curvature, 1.0), 0.0)
        x, residual = x + length * direction, residual - length * along
        fresh = residual.square().sum(-1, keepdim=True)
        direction = residual + torch.where(norm > 0, fresh / torch.where(norm > 0, norm, 1.0), 0.0) * direction
        norm = fresh
    return x


def neurons(network: MLP) -> Tensor:
    """Which neuron each parameter feeds, `[P]` int64: a neuron's own are its row of weights and its bias."""
    layers, start = [], 0
    for fan_in, fan_out in pairwise(network.sizes):
        own = torch.arange(start, start + fan_out)
        layers.append((own.unsqueeze(-1).expand(-1, fan_in), own))
        start += fan_out
    return network.flatten(layers)
