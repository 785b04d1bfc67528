"""How a critic knows a policy: by its parameters, or by a fingerprint, its answers in a few learned probing states.

Both give the same operations to the learners. S seeds, M critics per seed, N policies, P parameters of one policy, Q
parameters of one critic, K probing states, D observation size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from mindworks.core.policy import Policy
from mindworks.core.population import MLP, leaves
from mindworks.core.probing import Answer, Probing
from mindworks.errors import require
from mindworks.policies.regression import FingerprintError, SquaredError

Regression = Callable[[Tensor, Tensor], Tensor]


class Critic(Protocol):
    """Parameters `phi[..., Q]` that turn policies, and further features of each, into values."""

    @property
    def num_parameters(self) -> int:
        """Q, the length of one parameter vector."""
        ...

    def init(self, *leading: int, generator: torch.Generator) -> Tensor:
        """Fresh parameters `[*leading, Q]`."""
        ...

    def values(self, phi: Tensor, theta: Tensor, policy: Policy | None = None) -> Tensor:
        """Predictions `[S, M, N]` of the critics `phi[S, M, Q]` for `theta[S, N, P]`, `policy` their architecture."""
        ...

    def regression(self, phi: Tensor) -> Regression:
        """A function of `theta[S, N, P]` and targets `[S, N]`: the gradient `[S, M, Q]` of the mean squared error."""
        ...

    def unflatten(self, phi: Tensor) -> Any:
        """Views of the parts of `phi[S, Q]`, for `apply`."""
        ...

    def leaves(self, phi: Tensor) -> Any:
        """The same as leaves of autograd, for `apply` and then `gradient`."""
        ...

    def apply(self, parts: Any, theta: Tensor, *extra: Tensor) -> Tensor:
        """Predictions `[S, B]` for `theta[S, B, P]` beside `extra[S, B, *]`; theta may be `[S, 1, P]` for all."""
        ...

    def gradient(self, loss: Tensor, leaves: Any) -> Tensor:
        """The gradient `[S, Q]` of a scalar made with `apply(leaves, ...)`."""
        ...


def make_critic(policy: Policy, hidden: tuple[int, ...], probes: int, extra: int = 0) -> Critic:
    """The critic that a configuration asks for: a fingerprint of `probes` states, or with 0 the parameters."""
    return FingerprintCritic(policy, hidden, probes, extra) if probes else ParameterCritic(policy, hidden, extra)


class ParameterCritic:
    """A critic that reads the parameter vector itself: an MLP on `[extra, theta]`."""

    def __init__(self, policy: Policy, hidden: tuple[int, ...], extra: int = 0) -> None:
        self.policy = policy
        self.network = MLP((extra + policy.num_parameters, *hidden, 1), "relu")
        self.num_parameters, self.init = self.network.num_parameters, self.network.init
        self.unflatten = self.network.unflatten

    def values(self, phi: Tensor, theta: Tensor, policy: Policy | None = None) -> Tensor:
        """See `Critic`; another architecture than the one it was made for is refused."""
        require(
            policy is None or policy == self.policy,
            "policy must be the critic's own: only a critic with probes judges other architectures",
        )
        members = phi.shape[1]
        each = theta if members == 1 else theta.repeat_interleave(members, 0)
        return self.network.forward(phi.flatten(0, 1), each).squeeze(-1).unflatten(0, (-1, members))

    def regression(self, phi: Tensor) -> Regression:
        """See `Critic`."""
        error, members = SquaredError(self.network, phi.flatten(0, 1)), phi.shape[1]

        def gradient(theta: Tensor, targets: Tensor) -> Tensor:
            each, wanted = (x.repeat_interleave(members, 0) for x in (theta, targets))
            return error(each, wanted).view(phi.shape)

        return gradient

    def leaves(self, phi: Tensor) -> list[tuple[Tensor, Tensor]]:
        """See `Critic`."""
        return leaves(self.network.unflatten(phi))

    def apply(self, parts: list[tuple[Tensor, Tensor]], theta: Tensor, *extra: Tensor) -> Tensor:
        """See `Critic`."""
        return self.network.apply(parts, *extra, theta).squeeze(-1)

    def gradient(self, loss: Tensor, leaves: list[tuple[Tensor, Tensor]]) -> Tensor:
        """See `Critic`."""
        gradients = iter(torch.autograd.grad(loss, [leaf for layer in leaves for leaf in layer]))
        return self.network.flatten(list(zip(gradients, gradients, strict=True)))


class FingerprintCritic:
    """A critic that sees what a policy does in K learned probing states and nothing else.

    V(theta) = U([f(theta, s_1); ...; f(theta, s_K)]), f the policy's `features`: action probabilities, the action, or
    mean and standard deviation. Probing states are parameters, in the units of normalised observations, and start
    uniform in [0, 1]. Faccio et al., arXiv:2207.01566.
    """

    def __init__(self, policy: Policy, hidden: tuple[int, ...], probes: int, extra: int = 0) -> None:
        self.policy = policy
        self.probing = Probing((policy.network.sizes[0],), probes, policy.num_features, hidden, extra=extra)
        self.num_parameters, self.init = self.probing.num_parameters, self.probing.init
        self.unflatten, self.leaves = self.probing.unflatten, self.probing.leaves
        self.gradient = self.probing.gradient

    def values(self, phi: Tensor, theta: Tensor, policy: Policy | None = None) -> Tensor:
        """See `Critic`; any architecture over the same observations and actions will do."""
        require(
            policy is None or policy.head == self.policy.head,
            f"policy must have the critic's actions, {self.policy.head}, got {policy.head if policy else None}",
        )
        return self.probing.forward(phi, answers_of_all(policy or self.policy, theta)).squeeze(-1)

    def regression(self, phi: Tensor) -> Regression:
        """See `Critic`."""
        return FingerprintError(self.policy, self.probing, phi)

    def apply(self, parts: Any, theta: Tensor, *extra: Tensor) -> Tensor:
        """See `Critic`."""
        return self.probing.apply(parts, answers(self.policy, theta), *extra).squeeze(-1)

    def probes(self, phi: Tensor) -> Tensor:
        """The probing states `[..., K, D]` of `phi[..., Q]`."""
        return self.probing.probes(phi)


def answers(policy: Policy, theta: Tensor) -> Answer:
    """What `theta[..., N, P]` do at probing states `[..., K, D]`, as `Probing` asks: `[..., N, K, F]`."""
    return lambda probes: policy.features(theta, probes.unsqueeze(-3))


def answers_of_all(policy: Policy, theta: Tensor) -> Answer:
    """The same for M critics per seed: `theta[S, N, P]` at `[S, M, K, D]`, each policy run once: `[S, M, N, K, F]`."""

    def answer(probes: Tensor) -> Tensor:
        members, count = probes.shape[1:3]
        features = policy.features(theta, probes.flatten(1, 2).unsqueeze(1))
        return features.unflatten(2, (members, count)).transpose(1, 2)

    return answer
