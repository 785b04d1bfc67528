"""Small surrogates, the same bounds by plain loops over floats, and small searches, shared by the tests of POIS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from policy_helpers import episodes_by_hand
from torch import Tensor

from mindworks.core.policy import Box, Categorical, Policy
from mindworks.core.population import MLP
from mindworks.envs import make_batch
from mindworks.policies.pois import POIS, POISConfig
from mindworks.policies.search import Search
from mindworks.policies.surrogates import ActionSurrogate, Criterion, ParameterSurrogate, Returns, Steps

ESTIMATORS = ["plain", "self-normalized", "regression"]
PER_DECISION = ["per-decision", "self-normalized per-decision"]
CRITERIA = list(product(["divergence", "ess", "none"], ["max", "std"], [False, True]))  # penalty, scale, center
INF = math.inf
OBSERVED = spaces.Box(-1, 1, (2,))
POLICIES = {
    "gaussian": Policy(MLP((2, 2)), Box((-INF, -INF), (INF, INF), gaussian=True)),
    "deep gaussian": Policy(MLP((2, 3, 1)), Box((-INF,), (INF,), gaussian=True)),
    "categorical": Policy(MLP((2, 3)), Categorical(3)),
    "reference": Policy(MLP((2, 2), bias=False), Categorical(3, reference=True)),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- the bound ---------------------------------------------------------------------------------------------------------


def bound_by_hand(
    log_p: Sequence[float],
    log_q: Sequence[Sequence[float]],
    log_d2: Sequence[float],
    returns: Sequence[float],
    *,
    estimator: str,
    penalty: str,
    scale: str,
    center: bool,
    delta: float,
    decisions: Sequence[tuple[Sequence[float], Sequence[Sequence[float]], Sequence[float]]] = (),
) -> dict[str, float]:
    """The bound from log densities of M episodes under the target and under each of K behaviours of equal shares.

    `decisions` lists for every step what `log_p` and `log_q` are up to it, and the rewards of the M episodes there.
    """
    n, k = len(returns), len(log_q)
    mean = math.fsum(returns) / n
    offset = mean if center else 0.0
    f = [r - offset for r in returns]

    def weights(p: Sequence[float], q: Sequence[Sequence[float]]) -> list[float]:
        return [math.exp(p[i]) / math.fsum(math.exp(row[i]) / k for row in q) for i in range(n)]

    w = weights(log_p, log_q)
    total = math.fsum(w)
    products = [a * b for a, b in zip(w, f, strict=True)]
    if estimator == "plain":
        estimate = math.fsum(products) / n
    elif estimator == "self-normalized":
        estimate = math.fsum(products) / total
    elif estimator == "regression":
        away = [a - total / n for a in w]
        beta = math.fsum(a * b for a, b in zip(away, products, strict=True)) / math.fsum(a * a for a in away)
        estimate = math.fsum(b - beta * (a - 1) for a, b in zip(w, products, strict=True)) / n
    else:
        estimate = -offset
        for p, q, rewards in decisions:
            ratio = weights(p, q)
            over = math.fsum(ratio) if estimator.startswith("self") else n
            estimate += math.fsum(a * b for a, b in zip(ratio, rewards, strict=True)) / over
    ess = total**2 / math.fsum(a * a for a in w)
    d2 = 1 / math.fsum(1 / k / math.exp(d) for d in log_d2)
    largest = max(map(abs, f)) if scale == "max" else math.sqrt(math.fsum((r - mean) ** 2 for r in returns) / n)
    spread = {"divergence": d2 / n, "ess": 1 / ess, "none": 0.0}[penalty]
    cost = largest * math.sqrt((1 - delta) / delta) * math.sqrt(spread)
    names = ("value", "estimate", "penalty", "log_divergence", "ess")
    return dict(zip(names, (estimate - cost, estimate, cost, math.log(d2), ess), strict=True))


def log_normal(x: float, mean: float, log_std: float) -> float:
    return -0.5 * ((x - mean) / math.exp(log_std)) ** 2 - log_std - 0.5 * math.log(2 * math.pi)


def log_d2_normal(mean_p: float, log_std_p: float, mean_q: float, log_std_q: float) -> float:
    """log of the second moment of p / q under q, by completing the square."""
    var_p, var_q = math.exp(2 * log_std_p), math.exp(2 * log_std_q)
    mixed = 2 * var_q - var_p
    return (mean_p - mean_q) ** 2 / mixed + math.log(var_q / math.sqrt(var_p * mixed))


# -- parameters at random ----------------------------------------------------------------------------------------------


@dataclass
class ParameterCase:
    """K batches of 5 draws for each of 2 seeds; the second seed leaves the first batch out where there are more."""

    size: int
    batches: int
    delta: float = 0.3

    def __post_init__(self) -> None:
        shape = (2, self.batches, 5, self.size)
        means, log_stds = (normal(2, self.batches, self.size, seed=seed) for seed in (0, 1))
        self.behaviors = torch.cat([0.3 * means, 0.05 * log_stds], -1)
        mean, log_std = self.behaviors.unsqueeze(2).chunk(2, -1)
        self.theta = mean + log_std.exp() * normal(*shape, seed=2)
        self.values = 4 + 2 * normal(2, self.batches * 5, seed=3)
        self.valid = torch.ones(2, self.batches, dtype=torch.bool)
        self.valid[1, 0] = self.batches == 1
        self.rho = self.behaviors[:, -1] + 0.05 * normal(2, 2 * self.size, seed=4)

    def returns(self, scale: Any = "max", center: bool = False) -> Returns:
        return Returns(self.values, self.valid.repeat_interleave(self.theta.shape[2], 1), center, scale)

    def surrogate(
        self,
        estimator: Any,
        penalty: Any = "divergence",
        scale: Any = "max",
        center: bool = False,
        network: MLP | None = None,
    ) -> ParameterSurrogate:
        criterion = Criterion(estimator, penalty, self.delta)
        return ParameterSurrogate(
            self.theta, self.behaviors, self.valid, self.returns(scale, center), criterion, network
        )

    def by_hand(self, s: int, members: Sequence[int], **criterion: Any) -> dict[str, float]:
        """The bound of seed `s` as if there were no coordinates but `members`."""
        used = [k for k in range(self.batches) if self.valid[s, k]]
        theta = [row for k in used for row in self.theta[s, k].tolist()]
        returns = [value for k in used for value in self.values[s].view(self.batches, -1)[k].tolist()]

        def log_density(rho: list[float]) -> list[float]:
            return [math.fsum(log_normal(row[j], rho[j], rho[self.size + j]) for j in members) for row in theta]

        target, behaviors = self.rho[s].tolist(), [self.behaviors[s, k].tolist() for k in used]
        log_d2 = [
            math.fsum(log_d2_normal(target[j], target[self.size + j], old[j], old[self.size + j]) for j in members)
            for old in behaviors
        ]
        log_q = [log_density(old) for old in behaviors]
        return bound_by_hand(log_density(target), log_q, log_d2, returns, delta=self.delta, **criterion)


# -- actions at random -------------------------------------------------------------------------------------------------


class Head:
    """One policy's distribution at one observation, by loops: `log_prob(action)`, and log d_2 against another."""

    def __init__(self, policy: Policy, rho: Sequence[float], obs: Sequence[float]) -> None:
        x, rest = list(obs), list(rho)
        sizes = policy.network.sizes
        for layer, fan_out in enumerate(sizes[1:]):
            rows = [[rest.pop(0) for _ in x] for _ in range(fan_out)]
            bias = [rest.pop(0) for _ in range(fan_out)] if policy.network.bias else [0.0] * fan_out
            x = [math.fsum(a * b for a, b in zip(row, x, strict=True)) + c for row, c in zip(rows, bias, strict=True)]
            if layer < len(sizes) - 2:
                x = [math.tanh(value) for value in x]
        self.mean, self.log_std = x, rest
        if isinstance(policy.head, Categorical):
            logits = [0.0, *x] if policy.head.reference else x
            norm = math.fsum(map(math.exp, logits))
            self.p = [math.exp(value) / norm for value in logits]

    def log_prob(self, action: Any) -> float:
        if isinstance(action, int):
            return math.log(self.p[action])
        return math.fsum(map(log_normal, action, self.mean, self.log_std))

    def log_d2(self, other: Head) -> float:
        if hasattr(self, "p"):
            return math.log(math.fsum(p * p / q for p, q in zip(self.p, other.p, strict=True)))
        return math.fsum(map(log_d2_normal, self.mean, self.log_std, other.mean, other.log_std))


@dataclass
class ActionCase:
    """K batches of 4 episodes of 1 to 5 steps for each of 2 seeds; what lies past an episode's end is rubbish.

    The second seed leaves the first batch out where there are more.
    """

    kind: str
    batches: int
    discount: float = 0.9
    delta: float = 0.3
    damping: float = 0.01
    iterations: int = 10

    def __post_init__(self) -> None:
        self.policy = policy = POLICIES[self.kind]
        size, shape = policy.num_parameters, (2, self.batches, 4, 5)
        self.behaviors = 0.4 * normal(2, self.batches, size)
        policy.split(self.behaviors)[1].mul_(0.1)
        self.rho = self.behaviors[:, -1] + 0.05 * normal(2, size, seed=1)
        self.lengths = np.random.default_rng(0).integers(1, 6, shape[:3])
        self.lengths[0, 0, :2] = 5, 1
        self.mask = torch.arange(5) < torch.from_numpy(self.lengths).unsqueeze(-1)
        obs = torch.where(self.mask.unsqueeze(-1), normal(*shape, 2, seed=2), 30.0)
        if policy.continuous:
            actions = normal(*shape, policy.head.outputs, seed=3)
            actions = torch.where(self.mask.unsqueeze(-1), actions, -20.0)
        else:
            actions = torch.randint(3, shape, generator=torch.Generator().manual_seed(3))
        discounts = self.discount ** torch.arange(5, dtype=torch.float64)
        rewards = torch.where(self.mask, 1 + normal(*shape, seed=4), 0.0) * discounts
        self.steps = Steps(obs, actions, rewards, self.mask)
        self.values = rewards.sum(-1).flatten(1)
        self.valid = torch.ones(2, self.batches, dtype=torch.bool)
        self.valid[1, 0] = self.batches == 1

    def surrogate(
        self, estimator: Any, penalty: Any = "divergence", scale: Any = "max", center: bool = False
    ) -> ActionSurrogate:
        return ActionSurrogate(
            self.policy,
            self.steps,
            self.behaviors,
            self.valid,
            Returns(self.values, self.valid.repeat_interleave(self.mask.shape[2], 1), center, scale),
            Criterion(estimator, penalty, self.delta),
            damping=self.damping,
            iterations=self.iterations,
        )

    def heads(self, rho: Tensor, s: int, k: int, n: int) -> list[Head]:
        """The policy `rho[P]` in the states of one episode."""
        states = self.steps.observations[s, k, n, : self.lengths[s, k, n]].tolist()
        return [Head(self.policy, rho.tolist(), state) for state in states]

    def episodes(self, s: int) -> list[tuple[int, int]]:
        """The episodes that seed `s` uses, as (k, n)."""
        return [(k, n) for k in range(self.batches) if self.valid[s, k] for n in range(self.mask.shape[2])]

    def by_hand(self, s: int, **criterion: Any) -> dict[str, float]:
        """The bound of seed `s`."""
        used = [k for k in range(self.batches) if self.valid[s, k]]
        episodes, (count, longest) = self.episodes(s), self.mask.shape[2:]

        def prefixes(rho: Tensor) -> list[list[float]]:
            """log probability of each episode's actions up to time t, `[T][M]`."""
            table = []
            for k, n in episodes:
                acts = self.steps.actions[s, k, n].tolist()
                logs = [head.log_prob(action) for head, action in zip(self.heads(rho, s, k, n), acts, strict=False)]
                table.append([math.fsum(logs[: t + 1]) for t in range(longest)])
            return [list(column) for column in zip(*table, strict=True)]

        new, old = prefixes(self.rho[s]), [prefixes(self.behaviors[s, k]) for k in used]
        log_d2 = []
        for k in used:
            d2 = []
            for n in range(count):
                pairs = zip(self.heads(self.rho[s], s, k, n), self.heads(self.behaviors[s, k], s, k, n), strict=True)
                d2.append(math.exp(math.fsum(p.log_d2(q) for p, q in pairs)))
            log_d2.append(math.log(math.fsum(d2) / count))
        rewards = [[float(self.steps.rewards[s, k, n, t]) for k, n in episodes] for t in range(longest)]
        returns = [math.fsum(column) for column in zip(*rewards, strict=True)]
        decisions = [(new[t], [table[t] for table in old], rewards[t]) for t in range(longest)]
        last = [table[-1] for table in old]
        return bound_by_hand(new[-1], last, log_d2, returns, delta=self.delta, decisions=decisions, **criterion)


# -- searches ----------------------------------------------------------------------------------------------------------


def config(mode: str, **changes: Any) -> POISConfig:
    return (POISConfig.action_based if mode == "action" else POISConfig)(**changes)


def cartpole(
    mode: str,
    seeds: list[int],
    *,
    batches: int = 3,
    horizon: int = 40,
    hidden: tuple[int, ...] = (),
    continuous: bool = False,
    **changes: Any,
) -> Search:
    settings = config(mode, **{"episodes": 6, "offline_steps": 3, "cg_iterations": 4, **changes})
    name = "CartPoleContinuous-v0" if continuous else "CartPole-v1"
    env = make_batch(name, len(seeds) * settings.episodes, max_episode_steps=horizon)
    head = {"gaussian": mode == "action", "squash": mode != "action"} if continuous else {"reference": True}
    policy = Policy.for_spaces(env.single_observation_space, env.single_action_space, hidden, bias=False, **head)
    return Search(POIS(policy, settings, seeds), env, batches=batches)


def finish(search: Search) -> Search:
    while not search.done:
        search.advance()
    return search


def told_by_hand(seeds: int = 2, **changes: Any) -> POIS:
    """P-POIS for a linear policy of three parameters, for batches that `earn` makes up."""
    policy = Policy.for_spaces(OBSERVED, spaces.Box(-1, 1, (1,)))
    return POIS(policy, POISConfig(**{"episodes": 6, "delta": 0.9, "offline_steps": 3, **changes}), list(range(seeds)))


def earn(search: POIS, bonus: float | list[float] = 0.0) -> tuple[Tensor, Tensor]:
    """One batch whose returns are linear in the parameters, plus what each seed gets on top; both are returned."""
    theta = search.ask()
    returns = theta.double() @ torch.tensor([3.0, -2.0, 1.0]).double() + torch.tensor(bonus).double().view(-1, 1)
    search.tell(theta, episodes_by_hand([[value] for value in returns.flatten().tolist()]))
    return theta, returns
