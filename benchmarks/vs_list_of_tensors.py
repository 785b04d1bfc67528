"""Updates of parameter-based value functions: stacked parameters against the form of the published code.

The peer is that form written plainly: the replay is a Python list of (one tensor per layer, return), a batch is drawn
with `random.sample`, flattened policy by policy and stacked, and a `nn.Sequential` learns from it with
`torch.optim.Adam`. Both sides take ten critic steps of batch 16 per call, as one episode asks; the unit is one step.
The PSVF's policy step is compared with repeating the parameters once per state. Rows with bar 0 are information.
Run: `python benchmarks/vs_list_of_tensors.py`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

import _bench  # before torch: it asks for one thread

import torch  # isort: skip
from torch import Tensor, nn

from mindworks.core.policy import Box, Categorical, Policy
from mindworks.core.population import MLP
from mindworks.policies import PSSVF, PolicyReplay, PSSVFConfig
from mindworks.policies.streams import Streams

BATCH, STEPS = 16, 10
CRITIC = (64, 64)


class ListOfTensors:
    """A critic of policies whose replay is a Python list: the peer."""

    def __init__(self, policy: Policy, lr: float = 1e-3) -> None:
        self.shape = policy.network
        sizes = (policy.num_parameters, *CRITIC)
        layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
        self.critic = nn.Sequential(*(part for pair in layers for part in pair), nn.Linear(sizes[-1], 1))
        self.optimizer = torch.optim.Adam(self.critic.parameters(), lr=lr)
        self.replay: list[tuple[list[Tensor], float]] = []

    def add(self, theta: Tensor, value: float) -> None:
        """Keep one policy `theta[P]` as a tensor per weight and bias."""
        parts = [part.clone() for layer in self.shape.unflatten(theta) for part in layer]
        self.replay.append((parts, value))

    def draw(self, batch: int) -> tuple[Tensor, Tensor]:
        """A batch without replacement: policies `[B, P]` and returns `[B]`."""
        rows = random.sample(self.replay, min(batch, len(self.replay)))
        theta = torch.stack([torch.cat([part.flatten() for part in parts]) for parts, _ in rows])
        return theta, torch.tensor([value for _, value in rows])

    def fit(self, steps: int) -> None:
        """Take `steps` of regression on the replay."""
        for _ in range(steps):
            theta, values = self.draw(BATCH)
            loss = nn.functional.mse_loss(self.critic(theta).squeeze(-1), values)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def stacked(policy: Policy, seeds: int = 1, normalize: bool = True) -> PSSVF:
    """Our side: the default learner with the peer's critic and batch."""
    config = PSSVFConfig(critic_hidden=CRITIC, batch=BATCH, normalize_returns=normalize)
    return PSSVF(policy, config, range(seeds))


def fill(learner: PSSVF, theta: Tensor, values: Tensor) -> None:
    """Store `theta[S, N, P]` with `values[S, N]`, one by one as episodes come."""
    active = np.ones(len(learner.streams), bool)
    for n in range(theta.shape[1]):
        one = slice(n, n + 1)
        learner.replay.add(theta[:, one], values[:, one].double(), torch.ones_like(values[:, one]).long(), active)


def policies(policy: Policy, seeds: int, count: int) -> tuple[Tensor, Tensor]:
    """Policies `[S, count, P]` and returns `[S, count]` to learn from."""
    generator = torch.Generator().manual_seed(0)
    return policy.init(seeds, count, generator=generator), torch.randn(seeds, count, generator=generator)


def check_same_step(policy: Policy) -> None:
    """From the same critic and a replay of one policy, both sides must take the same steps."""
    theta, values = policies(policy, 1, 1)
    ours, peer = stacked(policy, normalize=False), ListOfTensors(policy)
    fill(ours, theta, values)
    peer.add(theta[0, 0], float(values[0, 0]))
    nn.utils.vector_to_parameters(ours.phi.flatten().clone(), peer.critic.parameters())
    ours.fit_critic(3)
    peer.fit(3)
    gap = (ours.phi.flatten() - nn.utils.parameters_to_vector(peer.critic.parameters())).abs().max()
    if gap > 1e-5:
        raise SystemExit(f"the sides differ: critics of {policy.num_parameters} inputs are apart by {gap:.2e}")


def critic_case(name: str, policy: Policy, stored: int, calls: int, bar: float) -> dict[str, Any]:
    """Time critic steps with `stored` policies in both replays."""
    check_same_step(policy)
    theta, values = policies(policy, 1, stored)
    ours, peer = stacked(policy), ListOfTensors(policy)
    fill(ours, theta, values)
    for parameters, value in zip(theta[0], values[0].tolist(), strict=True):
        peer.add(parameters, value)
    return timed(
        f"critic step, {name}, P={policy.num_parameters}, {stored} stored",
        lambda: ours.fit_critic(STEPS),
        lambda: peer.fit(STEPS),
        calls,
        STEPS,
        bar,
    )


def timed(
    case: str, ours: Callable[[], Any], peer: Callable[[], Any], calls: int, per: float, bar: float, **more: Any
) -> dict[str, Any]:
    """One row: `calls` calls per measurement, `per` units per call."""

    def many(call: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(calls):
                call()

        return run

    ours_s, peer_s = _bench.compare(many(ours), many(peer), repeats=9, warmup=2)
    return _bench.row(case, ours_s, peer_s, bar, per=per * calls, **more)


def policy_case(policy: Policy, states: int, hidden: tuple[int, ...], bar: float) -> dict[str, Any]:
    """Time V(s, theta) over many states and its gradient in theta: split first layer against repeat and concatenate."""
    generator = torch.Generator().manual_seed(0)
    width = policy.network.sizes[0]
    critic = MLP((width + policy.num_parameters, *hidden, 1), "relu")
    phi = critic.init(generator=generator)
    module = critic.module(phi).requires_grad_(False)
    obs = torch.randn(states, width, generator=generator)
    theta = policy.init(generator=generator).requires_grad_(True)

    def ours() -> tuple[Tensor, Tensor]:
        value = critic.forward(phi, obs, theta.unsqueeze(0)).mean()
        return value, torch.autograd.grad(value, theta)[0]

    def peer() -> tuple[Tensor, Tensor]:
        value = module(torch.cat([obs, theta.repeat(states, 1)], 1)).mean()
        return value, torch.autograd.grad(value, theta)[0]

    for mine, theirs in zip(ours(), peer(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)
    ours_s, peer_s = _bench.compare(ours, peer, repeats=5)
    title = f"PSVF policy step, {states} states, P={policy.num_parameters}, critic {'-'.join(map(str, hidden))}"
    return _bench.row(title, ours_s, peer_s, bar)


def memory_case(policy: Policy, stored: int, population: int, limit: float) -> dict[str, Any]:
    """Bytes of `stored` policies kept as seeds, and the cost of a batch made again from them."""
    size = policy.num_parameters
    streams, active = Streams([0]), np.ones(1, bool)
    seeds = PolicyReplay(1, size, population, stored, 0.05, "seed")
    generator = torch.Generator().manual_seed(0)
    for _ in range(stored // population):
        base, noise_seeds = policy.init(1, generator=generator), torch.from_numpy(streams.integers(population))
        values, lengths = torch.zeros(1, population, dtype=torch.float64), torch.ones(1, population, dtype=torch.int64)
        seeds.add(seeds.propose(base, noise_seeds), values, lengths, active, base, noise_seeds)
    peer = ListOfTensors(policy)
    for theta in policy.init(256, generator=generator):
        peer.add(theta, 0.0)
    title = f"a batch of {BATCH} made again from {stored} seeds, P={size}"
    sizes = {"ours_bytes": seeds.nbytes, "peer_bytes": stored * size * 4, "bytes_bar": limit}
    verdict = {"passed": seeds.nbytes < limit}
    return timed(
        title,
        lambda: seeds.theta(seeds.draw(streams, (BATCH,))),
        lambda: peer.draw(BATCH),
        5,
        1.0,
        0.0,
        **sizes,
        **verdict,
    )


def seeds_case(policy: Policy, seeds: int, stored: int) -> dict[str, Any]:
    """Critic steps of several seeds as a leading dimension against one learner per seed."""
    theta, values = policies(policy, seeds, stored)
    together, apart = stacked(policy, seeds), [stacked(policy) for _ in range(seeds)]
    fill(together, theta, values)
    for s, learner in enumerate(apart):
        fill(learner, theta[s : s + 1], values[s : s + 1])
    title = f"critic step of {seeds} seeds at once against {seeds} learners, P={policy.num_parameters}"
    return timed(
        title, lambda: together.fit_critic(STEPS), lambda: [one.fit_critic(STEPS) for one in apart], 5, STEPS, 0.0
    )


def main() -> int:
    """Run the cases; the status is 1 when a bar is missed."""
    torch.set_num_threads(1)
    random.seed(0)
    cartpole = Policy(MLP((4, 2)), Categorical(2))
    swimmer = Policy(MLP((8, 2)), Box((-1.0,) * 2, (1.0,) * 2))
    swimmer64 = Policy(MLP((8, 64, 64, 2)), swimmer.head)
    hopper64 = Policy(MLP((11, 64, 64, 3)), Box((-1.0,) * 3, (1.0,) * 3))
    swimmer256 = Policy(MLP((8, 256, 256, 2)), swimmer.head)
    rows = [
        critic_case("linear CartPole", cartpole, 10_000, calls=20, bar=2.0),
        critic_case("linear Swimmer", swimmer, 10_000, calls=20, bar=2.0),
        critic_case("2x64 Hopper", hopper64, 2_000, calls=5, bar=2.0),
        critic_case("2x256 Swimmer", swimmer256, 500, calls=1, bar=2.0),
        policy_case(swimmer64, 10_000, (512, 512), bar=8.0),
        memory_case(swimmer256, 10_000, population=8, limit=200e6),
        seeds_case(cartpole, 5, 10_000),
        seeds_case(hopper64, 5, 500),
    ]
    return 0 if _bench.write("vs_list_of_tensors", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
