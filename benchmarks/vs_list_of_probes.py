"""Updates of a fingerprint critic: one tensor of probing states against the form of the published code.

The peer is that form written plainly: every probing state is a parameter of its own, stacked anew in each forward; the
replay is a Python list of flat policies, drawn with `random.choices` and a list of weights that is made for every
batch; policies run through `torch.einsum`; `torch.optim.Adam` takes the steps. Both sides take five critic steps of
batch 16 per call, as one episode asks, and the unit is one step; or draw one batch.
Run: `python benchmarks/vs_list_of_probes.py`.
"""

from __future__ import annotations

import random
import sys
from itertools import pairwise
from typing import Any

import numpy as np

import _bench  # before torch: it asks for one thread

import torch  # isort: skip
from torch import Tensor, nn

from mindworks.core.policy import Box, Policy
from mindworks.core.population import MLP
from mindworks.policies import PSSVF, PSSVFConfig

BATCH, STEPS, RECENCY, LR = 16, 5, 1.1, 5e-3


class ListOfProbes(nn.Module):
    """A fingerprint critic with a parameter per probing state and a list as replay: the peer."""

    def __init__(self, policy: Policy, probes: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.policy = policy
        states = [nn.Parameter(torch.rand(policy.network.sizes[0])) for _ in range(probes)]
        self.states = nn.ParameterList(states)
        sizes = (probes * policy.num_features, *hidden)
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        self.evaluator = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))
        self.optimizer = torch.optim.Adam(self.parameters(), lr=LR)
        self.replay: list[tuple[Tensor, float]] = []

    def forward(self, theta: Tensor) -> Tensor:
        """Values `[B]` of policies `[B, P]`."""
        x = torch.stack([nn.utils.parameters_to_vector([state]) for state in self.states])
        layers = self.policy.network.unflatten(theta)
        for i, (weight, bias) in enumerate(layers):
            equation = "ki,boi->kbo" if i == 0 else "kbi,boi->kbo"
            x = torch.einsum(equation, x, weight) + bias
            x = torch.tanh(x)  # the published policies squash their outputs too
        return self.evaluator(x.transpose(0, 1).reshape(len(theta), -1)).squeeze(-1)

    def draw(self) -> list[tuple[Tensor, float]]:
        """A batch, newer policies more often."""
        weights = list((1 / np.arange(1, len(self.replay) + 1, dtype=float)) ** RECENCY)
        weights.reverse()
        return random.choices(self.replay, weights=weights, k=BATCH)

    def fit(self, steps: int) -> None:
        """Take `steps` of regression on the replay."""
        for _ in range(steps):
            rows = self.draw()
            theta = torch.stack([policy for policy, _ in rows])
            loss = nn.functional.mse_loss(self(theta), torch.tensor([value for _, value in rows]))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def ours(policy: Policy, probes: int, hidden: tuple[int, ...]) -> PSSVF:
    """Our side: the learner with the same critic."""
    config = PSSVFConfig(
        probes=probes, critic_hidden=hidden, batch=BATCH, lr_critic=LR, recency=RECENCY, normalize_returns=False
    )
    return PSSVF(policy, config, [0])


def fill(learner: PSSVF, peer: ListOfProbes, stored: int) -> None:
    """Store the same policies and returns on both sides, one by one as episodes come."""
    generator = torch.Generator().manual_seed(0)
    active, one = np.ones(1, bool), torch.ones(1, 1, dtype=torch.int64)
    for _ in range(stored):
        theta = learner.policy.init(1, 1, generator=generator)
        value = torch.randn(1, 1, generator=generator)
        learner.replay.add(theta, value.double(), one, active)
        peer.replay.append((theta[0, 0].clone(), float(value)))


def same_steps(policy: Policy, probes: int, hidden: tuple[int, ...]) -> None:
    """From the same critic and a replay of one policy, both sides must take the same steps."""
    learner, peer = ours(policy, probes, hidden), ListOfProbes(policy, probes, hidden)
    fill(learner, peer, 1)
    nn.utils.vector_to_parameters(learner.phi.flatten().clone(), peer.parameters())
    learner.fit_critic(3)
    peer.fit(3)
    gap = (learner.phi.flatten() - nn.utils.parameters_to_vector(peer.parameters())).abs().max()
    if gap > 1e-4:
        raise SystemExit(f"the sides differ: critics of {probes} states are apart by {gap:.2e}")


def critic_case(policy: Policy, probes: int, hidden: tuple[int, ...], stored: int, calls: int, bar: float) -> Any:
    """Time critic steps with `stored` policies in both replays."""
    same_steps(policy, probes, hidden)
    learner, peer = ours(policy, probes, hidden), ListOfProbes(policy, probes, hidden)
    fill(learner, peer, stored)
    taken = _bench.compare(
        lambda: [learner.fit_critic(STEPS) for _ in range(calls)], lambda: [peer.fit(STEPS) for _ in range(calls)]
    )
    shape = "x".join(map(str, policy.network.sizes[1:-1])) or "linear"
    case = f"critic step, {shape} policies, {probes} states, {stored} stored"
    return _bench.row(case, *taken, bar, per=STEPS * calls)


def draw_case(policy: Policy, stored: int, bar: float) -> Any:
    """Time drawing one batch by recency."""
    learner, peer = ours(policy, 3, (8,)), ListOfProbes(policy, 3, (8,))
    fill(learner, peer, stored)
    taken = _bench.compare(
        lambda: [learner.replay.draw(learner.streams, (BATCH,)) for _ in range(50)],
        lambda: [peer.draw() for _ in range(50)],
    )
    return _bench.row(f"batch by recency, {stored} stored", *taken, bar, per=50)


def policy_of(hidden: tuple[int, ...]) -> Policy:
    """Policies of Swimmer's sizes."""
    return Policy(MLP((8, *hidden, 2)), Box((-1.0, -1.0), (1.0, 1.0)))


def main() -> int:
    torch.set_num_threads(1)
    rows = [
        critic_case(policy_of((256, 256)), 200, (256, 256), 100, 1, bar=2),
        critic_case(policy_of((256, 256)), 10, (256, 256), 100, 2, bar=0),
        critic_case(policy_of(()), 50, (256, 256), 1000, 10, bar=5),
        critic_case(policy_of((16,)), 10, (32, 32), 1000, 10, bar=0),
        draw_case(policy_of(()), 10_000, bar=5),
    ]
    return 0 if _bench.write("vs_list_of_probes", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
