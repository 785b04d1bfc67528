"""Importance sampling in log space: weights, estimators, effective sample size and a high-confidence lower bound.

Samples come from a behaviour distribution Q and speak about a target P through the weights w = P / Q. N samples, T
steps of an episode, K behaviour distributions, `...` any leading dimensions. Weights travel as logarithms; every
estimator takes out the largest one before it exponentiates. A sample that does not count has log weight -inf, and
`count` says how many do; a step after the end of its episode is False in `mask`.

Metelli, Papini, Faccio and Restelli, "Policy Optimization via Importance Sampling", NeurIPS 2018, arXiv:1809.06098;
Owen and Zhou, "Safe and effective importance sampling", JASA 95, 2000 (the control variate); Veach and Guibas,
"Optimally combining sampling techniques for Monte Carlo rendering", SIGGRAPH 1995 (the balance heuristic).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mindworks.errors import require


def log_ratio(log_target: Tensor, log_behavior: Tensor, mask: Tensor | None = None) -> Tensor:
    """log w of each step, `[..., T]`: log P - log Q, and 0 where `mask` `[..., T]` is False.

    What stands in steps that do not count, NaN included, reaches neither the value nor the gradient.
    """
    require(
        log_target.shape[-1:] == log_behavior.shape[-1:],
        f"log_behavior must have {log_target.shape[-1]} steps, got {log_behavior.shape[-1]}",
    )
    if mask is None:
        return log_target - log_behavior
    zero = torch.zeros((), dtype=log_target.dtype, device=log_target.device)
    return torch.where(mask, log_target, zero) - torch.where(mask, log_behavior, zero)


def trajectory_log_weights(log_target: Tensor, log_behavior: Tensor, mask: Tensor | None = None) -> Tensor:
    """log w of whole episodes `[...]` from log probabilities of their actions `[..., T]`: sum_t log P_t - log Q_t."""
    return log_ratio(log_target, log_behavior, mask).sum(-1)


def decision_log_weights(log_target: Tensor, log_behavior: Tensor, mask: Tensor | None = None) -> Tensor:
    """log w of the part of an episode up to and with each action, `[..., T]`; constant after the episode's end."""
    return log_ratio(log_target, log_behavior, mask).cumsum(-1)


def balance_log_weights(log_target: Tensor, log_behaviors: Tensor, shares: Tensor) -> Tensor:
    """log P / (sum_k share_k Q_k), `[..., N]`: the balance heuristic over K behaviours, whoever drew the sample.

    log_target: `[..., N]`; log_behaviors: `[..., K, N]`, the log density of every sample under every behaviour;
    shares: `[..., K]`, the fraction of the samples that each behaviour drew (0 for one that takes no part).
    """
    require(
        log_behaviors.shape[-2] == shares.shape[-1],
        f"shares must have {log_behaviors.shape[-2]} entries, one per behaviour, got {shares.shape[-1]}",
    )
    parts = shares.log().unsqueeze(-1) + log_behaviors
    takes_part = (shares > 0).unsqueeze(-1)
    return log_target - torch.where(takes_part, parts, -torch.inf).logsumexp(-2)


def normalized(log_weights: Tensor) -> Tensor:
    """Self-normalised weights `[..., N]`: non-negative, summing to 1 over the last dimension."""
    return log_weights.softmax(-1)


def mean_estimate(log_weights: Tensor, values: Tensor, count: Tensor | None = None) -> Tensor:
    """(1/N) sum_i w_i f_i, `[...]`: unbiased, of a variance that grows with d_2(P || Q).

    Infinite, with the sign of what dominates, where even the answer is beyond the numbers of the dtype.
    """
    top = _top(log_weights)
    total = ((log_weights - top.unsqueeze(-1)).exp() * values).sum(-1)
    scale = (top - _samples(log_weights, count).log()).exp()
    finite = total * scale.clamp_max(torch.finfo(total.dtype).max)  # a total of 0 stays 0
    return torch.where(scale.isinf() & (total != 0), total.detach().sign() * torch.inf, finite)


def self_normalized_estimate(log_weights: Tensor, values: Tensor) -> Tensor:
    """sum_i w_i f_i / sum_i w_i, `[...]`: biased, consistent, and never outside the range of the values."""
    return (normalized(log_weights) * values).sum(-1)


def regression_estimate(log_weights: Tensor, values: Tensor, count: Tensor | None = None) -> Tensor:
    """The mean of w f - beta (w - 1), `[...]`, with the beta that fits w f to w best: E w = 1 is a control variate.

    Where all weights are equal there is nothing to regress on, and beta is 0.
    """
    size = _samples(log_weights, count)
    counts = log_weights > -torch.inf
    weights = log_weights.exp()
    product = weights * values
    average, mean = product.sum(-1) / size, weights.sum(-1) / size
    spread = torch.where(counts, weights - mean.unsqueeze(-1), 0.0)
    variance = spread.square().sum(-1)
    slope = (spread * product).sum(-1) / torch.where(variance > 0, variance, 1.0)
    return average - torch.where(variance > 0, slope, 0.0) * (mean - 1)


def per_decision_estimate(
    log_weights: Tensor, rewards: Tensor, *, normalize: bool = False, count: Tensor | None = None
) -> Tensor:
    """sum_t of the weighted mean over N of r_t, each reward with the weight of the actions up to it: `[...]`.

    log_weights: `[..., N, T]` from `decision_log_weights`; rewards: `[..., N, T]`, discounted already and 0 after the
    end of an episode. `normalize` divides by the sum of the weights of every step instead of by N. Precup, Sutton and
    Singh, "Eligibility traces for off-policy policy evaluation", ICML 2000.
    """
    along = log_weights.mT
    if normalize:
        return self_normalized_estimate(along, rewards.mT).sum(-1)
    return mean_estimate(along, rewards.mT, None if count is None else count.unsqueeze(-1)).sum(-1)


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """(sum_i w_i)^2 / sum_i w_i^2, `[...]`, between 1 and N: how many samples of P the weighted ones are worth."""
    return (2 * log_weights.logsumexp(-1) - (2 * log_weights).logsumexp(-1)).exp()


def mixture_log_divergence(log_divergences: Tensor, shares: Tensor) -> Tensor:
    """An upper bound of log d_2(P || sum_k share_k Q_k), `[...]`, from the K divergences log d_2(P || Q_k) `[..., K]`.

    d_2(P || sum_k share_k Q_k) <= 1 / sum_k (share_k / d_2(P || Q_k)): by convexity of 1/x the left side is at most
    sum_k b_k^2 / share_k * d_2(P || Q_k) for any b that sums to 1, and b_k ~ share_k / d_2 makes that smallest. With
    one behaviour it is an equality. Behaviours of infinite divergence, and of share 0, drop out.
    """
    finite = (shares > 0) & (log_divergences < torch.inf)
    parts = torch.where(finite, shares.clamp_min(torch.finfo(shares.dtype).tiny).log(), 0.0) - torch.where(
        finite, log_divergences, 0.0
    )
    return -torch.where(finite, parts, -torch.inf).logsumexp(-1)


def penalty(log_divergence: Tensor, *, size: Tensor, scale: Tensor, delta: float | Tensor) -> Tensor:
    """scale * sqrt((1 - delta) d_2(P || Q) / (delta N)), `[...]`: what a lower bound takes off an estimate.

    With scale = the largest |f|, the mean of w f minus this is at most E_P f with probability 1 - delta (Cantelli's
    inequality and Var w f <= |f|^2 d_2 / N; Theorem 4.1 of the paper). Infinite where d_2 is. `delta` is one number or
    one per row, a tensor that broadcasts with the others.
    """
    if isinstance(delta, Tensor):
        require(bool(((delta > 0) & (delta <= 1)).all()), f"delta must be in (0, 1], got {delta.tolist()}")
        odds: float | Tensor = ((1 - delta) / delta).sqrt().to(scale)
    else:
        require(0 < delta <= 1, f"delta must be in (0, 1], got {delta}")
        odds = math.sqrt((1 - delta) / delta)
    root = ((log_divergence - size.log()) / 2).exp()
    factor = scale * odds
    return torch.where(factor > 0, factor * root, torch.zeros_like(root))


def lower_bound(
    log_weights: Tensor, values: Tensor, log_divergence: Tensor, *, largest: Tensor | float, delta: float
) -> Tensor:
    """A number that is at most E_P f with probability 1 - delta, `[...]`, from N samples of Q and |f| <= `largest`."""
    size = torch.tensor(float(values.shape[-1]), dtype=values.dtype, device=values.device)
    scale = torch.as_tensor(largest, dtype=values.dtype, device=values.device)
    return mean_estimate(log_weights, values) - penalty(log_divergence, size=size, scale=scale, delta=delta)


def _top(log_weights: Tensor) -> Tensor:
    """The largest log weight `[...]`, 0 where none counts, without gradient: it cancels."""
    top = log_weights.detach().amax(-1)
    return torch.where(top > -torch.inf, top, torch.zeros_like(top))


def _samples(log_weights: Tensor, count: Tensor | None) -> Tensor:
    if count is not None:
        return count.to(log_weights)
    return torch.tensor(float(log_weights.shape[-1]), dtype=log_weights.dtype, device=log_weights.device)
