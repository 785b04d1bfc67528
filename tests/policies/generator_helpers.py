"""Small generators of policies, and returns that are a known function of the policy, shared by their tests."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
import torch
from policy_helpers import episodes_by_hand, of_seed
from torch import Tensor

from mindworks.core.policy import Box, Policy
from mindworks.core.population import MLP
from mindworks.policies import UDRLPG, GoGePo, GoGePoConfig

GENERATORS = {"gogepo": GoGePo, "udrlpg": UDRLPG}
LOW, HIGH = -40.0, 40.0
POLICY = Policy(MLP((1, 3, 1)), Box((-inf,), (inf,)))
SMALL: dict[str, Any] = {
    "population": 4,
    "probes": 3,
    "critic_hidden": (8,),
    "critic_steps": 2,
    "policy_steps": 2,
    "lr_policy": 1e-2,
    "lr_critic": 1e-2,
    "ensemble": 2,
    "batch": 8,
    "generator_batch": 6,
    "return_low": LOW,
    "return_high": HIGH,
    "drive": 2.0,
    "settling": 4,
    "warmup": 8,
    "average": 0.9,
    "tile": 2,
    "embedding": 3,
    "generator_hidden": (8,),
}


def maker(kind: str = "gogepo", seeds: Sequence[int] = (0, 1), policy: Policy = POLICY, **config: Any) -> GoGePo:
    """A tiny learner: 4 policies per generation, one generation of settling, two of warm-up."""
    return GENERATORS[kind](policy, GoGePoConfig(**{**SMALL, **config}), seeds)


def achieved(policy: Policy, theta: Tensor) -> Tensor:
    """The returns `[...]` of `theta[..., P]`: in [LOW, HIGH], a smooth function of what they do at 0.7."""
    return HIGH * torch.tanh(policy.features(theta, torch.tensor([[0.7]]))[..., 0, 0])


def tell(
    one: GoGePo,
    theta: Tensor,
    returns: Tensor | None = None,
    active: np.ndarray | None = None,
    lengths: Sequence[int] | None = None,
) -> None:
    """Tell what `theta[S, N, P]` achieved, or `returns[S, N]`; an episode of seed s has `lengths[s]` steps, or one."""
    returns = achieved(one.policy, theta) if returns is None else returns
    steps = [1] * len(theta) if lengths is None else lengths
    rewards = [[r] + [0.0] * (n - 1) for row, n in zip(returns.tolist(), steps, strict=True) for r in row]
    one.tell(theta, episodes_by_hand(rewards), active)


def practise(one: GoGePo, generations: int) -> GoGePo:
    """Some generations with the returns of `achieved`."""
    for _ in range(generations):
        tell(one, one.ask())
    return one


def watched(one: GoGePo) -> list[Tensor]:
    """A list to which every later call of `generate` adds its commands."""
    seen: list[Tensor] = []
    generate = one.generate

    def watching(commands: Tensor) -> Tensor:
        seen.append(commands.clone())
        return generate(commands)

    one.generate = watching  # type: ignore[method-assign]
    return seen


def everything_of(one: GoGePo, s: int) -> dict[str, Any]:
    """Copies of everything seed s owns, with its generator and its torch stream."""
    return {
        **of_seed(one, s),
        "rho": one.rho[s].clone(),
        "mean_rho": one.mean_rho[s].clone(),
        "stream": one.streams.torch[s].get_state(),
    }
