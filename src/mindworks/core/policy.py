"""Policies of a population: an architecture with a head that turns network outputs into actions.

Shape legend: P parameters of one policy, B observations per policy, D observation size, A action size, `...` leading
dimensions (seeds, populations). A policy is a shape; its parameters travel beside it as `theta[..., P]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import log, pi
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from mindworks.core.population import MLP
from mindworks.errors import InputError, require

INITIAL_LOG_STD = -0.5
Actor = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Scaling(Protocol):
    """What an actor needs of an observation normaliser: a mean and a standard deviation, `[S, D]` or `[D]`."""

    mean: np.ndarray

    @property
    def std(self) -> np.ndarray:
        """The standard deviation, positive."""
        ...


@dataclass(frozen=True)
class Categorical:
    """`actions` discrete actions; the network's outputs are logits. The mode is the argmax.

    With `reference`, the first action's logit is 0 and the network has an output for each of the others: the same
    policies from fewer parameters, as in logistic regression.
    """

    actions: int
    reference: bool = False

    def __post_init__(self) -> None:
        require(not self.reference or self.actions >= 2, f"reference needs at least 2 actions, got {self.actions}")

    @property
    def outputs(self) -> int:
        """How many outputs the network needs."""
        return self.actions - self.reference


@dataclass(frozen=True)
class Box:
    """Continuous actions in [low, high]: the network's output is squashed by tanh onto the bounds of each dimension.

    A dimension without finite bounds is left as it is. With `gaussian`, a state-independent log standard deviation per
    dimension (the last A entries of theta) makes noise before the squashing; without it the policy is deterministic.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    gaussian: bool = False

    def __post_init__(self) -> None:
        require(
            len(self.low) == len(self.high) >= 1,
            f"low and high must have one entry per action, got {self.low}, {self.high}",
        )
        require(
            all(a < b for a, b in zip(self.low, self.high, strict=True)),
            f"low must be below high, got {self.low}, {self.high}",
        )

    @property
    def outputs(self) -> int:
        """How many outputs the network needs."""
        return len(self.low)

    @cache  # noqa: B019  (a head is a small frozen value; squashing asks for its bounds at every call)
    def bounds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(which dimensions are squashed, centre, half-width), float32 `[A]` each; unbounded dimensions get 0 and 1."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        bounded = np.isfinite(low) & np.isfinite(high)
        centre = np.where(bounded, (np.where(bounded, low, 0) + np.where(bounded, high, 0)) / 2, 0)
        width = np.where(bounded, (np.where(bounded, high, 1) - np.where(bounded, low, 0)) / 2, 1)
        return bounded, centre.astype(np.float32), width.astype(np.float32)


@dataclass(frozen=True)
class Policy:
    """An MLP with a head; `theta[..., P]` holds the weights and, for a Gaussian head, log standard deviations last."""

    network: MLP
    head: Categorical | Box

    def __post_init__(self) -> None:
        require(
            self.network.sizes[-1] == self.head.outputs,
            f"network must have {self.head.outputs} outputs for this head, got {self.network.sizes[-1]}",
        )

    @classmethod
    def for_spaces(
        cls,
        observation_space: Any,
        action_space: Any,
        hidden: Sequence[int] = (),
        *,
        gaussian: bool = False,
        activation: str = "tanh",
        bias: bool = True,
        squash: bool = True,
        reference: bool = False,
    ) -> Policy:
        """The policy for a Gymnasium observation `Box` of rank 1 and a `Discrete` or `Box` action space.

        `hidden` lists the hidden sizes, empty for a linear policy; `gaussian` makes a continuous policy stochastic;
        without `bias` no layer has biases; without `squash` continuous actions are the network's outputs, and whatever
        lies outside the bounds is left to the environment, which clips it; `reference` fixes the first discrete
        action's logit at 0.
        """
        shape: tuple[int, ...] = observation_space.shape if isinstance(observation_space, spaces.Box) else ()
        require(len(shape) == 1, f"observation_space must be a Box of rank 1, got {observation_space}")
        head: Categorical | Box
        if isinstance(action_space, spaces.Discrete):
            require(not gaussian, "gaussian needs a continuous action space, got a discrete one")
            require(int(action_space.start) == 0, f"action_space must start at 0, got {action_space}")
            head = Categorical(int(action_space.n), reference)
        elif isinstance(action_space, spaces.Box) and len(action_space.shape) == 1:
            require(not reference, "reference needs a discrete action space, got a continuous one")
            unbounded = np.full(action_space.shape, np.inf)
            low, high = (action_space.low, action_space.high) if squash else (-unbounded, unbounded)
            head = Box(tuple(map(float, low)), tuple(map(float, high)), gaussian)
        else:
            raise InputError(f"action_space must be Discrete or a Box of rank 1, got {action_space}")
        return cls(MLP((shape[0], *hidden, head.outputs), activation, bias), head)

    @property
    def gaussian(self) -> bool:
        """Whether the policy is a squashed Gaussian."""
        return isinstance(self.head, Box) and self.head.gaussian

    @property
    def continuous(self) -> bool:
        """Whether actions are vectors of numbers, and not one of a finite set."""
        return isinstance(self.head, Box)

    @property
    def squashes(self) -> bool:
        """Whether any action is squashed onto finite bounds."""
        return isinstance(self.head, Box) and bool(self.head.bounds()[0].any())

    @property
    def num_parameters(self) -> int:
        """P, the length of one parameter vector."""
        return self.network.num_parameters + (self.head.outputs if self.gaussian else 0)

    @property
    def action_size(self) -> int:
        """A, the numbers in an action, or in its one-hot form where actions are discrete."""
        return self.head.actions if isinstance(self.head, Categorical) else self.head.outputs

    @property
    def num_features(self) -> int:
        """F, the numbers in `features` at one observation."""
        return self.action_size * (2 if self.gaussian else 1)

    def init(self, *leading: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Fresh parameter vectors `[*leading, P]`; log standard deviations start at -0.5."""
        theta = self.network.init(*leading, generator=generator, dtype=dtype)
        if not self.gaussian:
            return theta
        return torch.cat([theta, theta.new_full((*leading, self.head.outputs), INITIAL_LOG_STD)], -1)

    def split(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """`theta[..., P]` as (weights, log standard deviations `[..., A]`, empty unless Gaussian)."""
        require(
            theta.shape[-1:] == (self.num_parameters,),
            f"theta must end in {self.num_parameters} parameters, got shape {tuple(theta.shape)}",
        )
        return theta[..., : self.network.num_parameters], theta[..., self.network.num_parameters :]

    def outputs(self, theta: Tensor, obs: Tensor) -> Tensor:
        """Network outputs `[..., B, outputs]` (logits, or actions before squashing) at `obs[..., B, D]`."""
        return self.network.forward(self.split(theta)[0], obs)

    def logits(self, outputs: Tensor) -> Tensor:
        """Logits `[..., actions]` of a discrete head, from the network's outputs."""
        assert isinstance(self.head, Categorical)
        return pad(outputs, (1, 0)) if self.head.reference else outputs

    def squash(self, outputs: Tensor) -> Tensor:
        """Actions inside the bounds from outputs before squashing, `[..., A]`."""
        bounded, centre, width = self._bounds(outputs)
        squashed = centre + width * torch.tanh(outputs)
        return squashed if all(bounded.tolist()) else torch.where(bounded, squashed, outputs)

    def action(self, theta: Tensor, obs: Tensor) -> Tensor:
        """The deterministic action `[..., B, A]`, differentiable in theta (for a Gaussian head, its squashed mean)."""
        if isinstance(self.head, Categorical):
            raise InputError("action has no gradient for a discrete head: use mode, or the probabilities")
        return self.squash(self.outputs(theta, obs))

    def mode(self, theta: Tensor, obs: Tensor) -> Tensor:
        """The greedy action: argmax `[..., B]` int64 for a discrete head, else `action`."""
        if isinstance(self.head, Categorical):
            return self.logits(self.outputs(theta, obs)).argmax(-1)
        return self.action(theta, obs)

    def features(self, theta: Tensor, obs: Tensor) -> Tensor:
        """What the policy does at `obs[..., B, D]`, differentiable in theta: `[..., B, F]`.

        Action probabilities for a discrete head, the action for a deterministic one, the squashed mean and the
        standard deviation for a Gaussian one.
        """
        return self.features_of(theta, self.outputs(theta, obs))

    def features_of(self, theta: Tensor, outputs: Tensor) -> Tensor:
        """`features` from the network's outputs `[..., B, outputs]` there."""
        if isinstance(self.head, Categorical):
            # torch's softmax over a few numbers takes three times as long: 580, not 188 us for 9,600 pairs, 2026-11-22
            logits = self.logits(outputs)
            return (logits - logits.logsumexp(-1, keepdim=True)).exp()
        action = self.squash(outputs)
        if not self.gaussian:
            return action
        deviation = self.split(theta)[1].exp().unsqueeze(-2).expand_as(action)
        return torch.cat([action, deviation], -1)

    def sample(self, theta: Tensor, obs: Tensor, generator: torch.Generator) -> Tensor:
        """Actions drawn from the stochastic policy: `[..., B]` int64 or `[..., B, A]`."""
        outputs = self.outputs(theta, obs)
        if isinstance(self.head, Categorical):
            logits = self.logits(outputs)
            uniform = torch.rand(logits.shape, generator=generator, dtype=outputs.dtype).clamp_min(
                torch.finfo(outputs.dtype).tiny
            )
            return (logits - (-uniform.log()).log()).argmax(-1)  # the Gumbel-max form of a categorical draw
        self._require_stochastic()
        noise = torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype)
        return self.squash(outputs + self.split(theta)[1].exp().unsqueeze(-2) * noise)

    def log_prob(self, theta: Tensor, obs: Tensor, actions: Tensor) -> Tensor:
        """Log probability (density) `[..., B]` of `actions[..., B]` (discrete) or `[..., B, A]`.

        Squashed actions must lie strictly inside their bounds; on a bound the nearest representable action counts.
        """
        return self.log_prob_of(theta, self.outputs(theta, obs), actions)

    def log_prob_of(self, theta: Tensor, outputs: Tensor, actions: Tensor) -> Tensor:
        """`log_prob` from the network's outputs `[..., B, outputs]` there."""
        if isinstance(self.head, Categorical):
            return self.logits(outputs).log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        self._require_stochastic()
        log_std, raw = self.split(theta)[1].unsqueeze(-2), actions
        if self.squashes:
            bounded, centre, width = self._bounds(outputs)
            inside = 1 - torch.finfo(outputs.dtype).eps
            raw = torch.where(bounded, torch.atanh(((actions - centre) / width).clamp(-inside, inside)), actions)
        normal = -0.5 * ((raw - outputs) / log_std.exp()) ** 2 - log_std - 0.5 * log(2 * pi)
        if not self.squashes:
            return normal.sum(-1)
        # log |da/du| of a = centre + width * tanh(u), in the form that does not cancel for large |u|
        stretch = torch.where(bounded, width.log() + 2 * (log(2.0) - raw - softplus(-2 * raw)), torch.zeros_like(raw))
        return (normal - stretch).sum(-1)

    def actor(
        self, theta: Tensor, normalizer: Scaling | None = None, rngs: Sequence[np.random.Generator] | None = None
    ) -> Actor:
        """A numpy function `act(obs[N, D], alive[N]) -> actions [N] or [N, A]` for `theta[..., P]` flattened to N rows.

        For stepping environments: no autograd, and rows that are not alive cost nothing (their actions are zero).
        `normalizer` gives mean and std `[S, D]` or `[D]`, `rngs` S generators that make the policies stochastic; the
        S groups of N / S consecutive rows share one each. Without `rngs` the mode is played.
        """
        return _NumpyActor(self, theta, normalizer, rngs)

    def module(self, theta: Tensor) -> nn.Sequential:
        """The network of one policy `theta[P]`, an `nn.Sequential`: observations to logits or unsquashed actions."""
        return self.network.module(self.split(theta)[0])

    def _require_stochastic(self) -> None:
        require(
            self.gaussian, "policy is deterministic: build it with gaussian=True to sample or to take log probabilities"
        )

    def _bounds(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert isinstance(self.head, Box)
        return _as_tensors(self.head, like.dtype, like.device)


@cache
def _as_tensors(head: Box, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    bounded, centre, width = (torch.from_numpy(array).to(device) for array in head.bounds())
    return bounded, centre.to(dtype), width.to(dtype)


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


class _NumpyActor:
    """The stepping path. np.matmul of weights [N, out, in] with vectors [N, in, 1] took 9.2 us per 256 x 256 layer and
    policy, and 0.05 us per 2 x 4 layer; torch.bmm 9.3 and 0.08, both faster than a loop over modules (2026-11-22)."""

    def __init__(
        self, policy: Policy, theta: Tensor, normalizer: Scaling | None, rngs: Sequence[np.random.Generator] | None
    ) -> None:
        weights, log_std = policy.split(theta.detach().reshape(-1, theta.shape[-1]))
        self.rows = weights.shape[0]
        self.layers = [(w.numpy(), b.numpy()) for w, b in policy.network.unflatten(weights)]
        self.activation = np.tanh if policy.network.activation == "tanh" else _relu
        self.std = log_std.exp().numpy()
        self.head, self.rngs = policy.head, rngs
        self.bounds = policy.head.bounds() if isinstance(policy.head, Box) else None
        self.normalizer = (
            None if normalizer is None else tuple(self._per_row(x) for x in (normalizer.mean, normalizer.std))
        )
        if rngs is not None:
            require(self.rows % len(rngs) == 0, f"rngs must divide the {self.rows} rows evenly, got {len(rngs)}")
            if isinstance(self.head, Box):
                policy._require_stochastic()
        self.alive: np.ndarray | None = None

    def __call__(self, obs: np.ndarray, alive: np.ndarray) -> np.ndarray:
        if self.alive is None or not np.array_equal(alive, self.alive):
            self._compact(alive)
        hidden = obs[self.index].astype(np.float32, copy=False)
        if self.compact_normalizer is not None:
            mean, std = self.compact_normalizer
            hidden = (hidden - mean) / std
        *body, (weight, bias) = self.compact
        for w, b in body:
            hidden = self.activation(np.matmul(w, hidden[:, :, None])[:, :, 0] + b)
        outputs = np.matmul(weight, hidden[:, :, None])[:, :, 0] + bias
        chosen = self._head(outputs)
        actions = np.zeros((self.rows, *chosen.shape[1:]), chosen.dtype)
        actions[self.index] = chosen
        return actions

    def _per_row(self, array: np.ndarray) -> np.ndarray:
        groups = np.asarray(array, np.float32).reshape(-1, array.shape[-1])
        require(self.rows % len(groups) == 0, f"normalizer must divide the {self.rows} rows evenly, got {len(groups)}")
        return np.repeat(groups, self.rows // len(groups), 0)

    def _compact(self, alive: np.ndarray) -> None:
        """Keep the weights of living rows together: copied once per death, read at every step."""
        self.alive = alive.copy()
        self.index: Any = slice(None) if alive.all() else np.flatnonzero(alive)
        self.compact = [(w[self.index], b[self.index]) for w, b in self.layers]
        self.compact_std = self.std[self.index]
        self.compact_normalizer = None if self.normalizer is None else tuple(x[self.index] for x in self.normalizer)

    def _noise(self, width: int, draw: str) -> np.ndarray:
        """Draws for every row, dead ones too, so that a row's noise does not depend on when the others die."""
        assert self.rngs is not None
        per_group = self.rows // len(self.rngs)
        return np.concatenate([getattr(rng, draw)(size=(per_group, width)) for rng in self.rngs])[self.index]

    def _head(self, outputs: np.ndarray) -> np.ndarray:
        if isinstance(self.head, Categorical):
            if self.head.reference:
                outputs = np.concatenate([np.zeros_like(outputs[:, :1]), outputs], 1)
            if self.rngs is not None:
                outputs = outputs + self._noise(self.head.actions, "gumbel")
            return outputs.argmax(-1)
        if self.rngs is not None:
            outputs = outputs + self.compact_std * self._noise(self.head.outputs, "standard_normal").astype(np.float32)
        assert self.bounds is not None
        bounded, centre, width = self.bounds
        return np.where(bounded, centre + width * np.tanh(outputs), outputs)
