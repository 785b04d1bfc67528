"""GoGePo: a generator that writes the weights of a policy with the return it is asked for.

Faccio, Herrmann, Ramesh, Kirsch and Schmidhuber, "Goal-Conditioned Generators of Deep Policies", AAAI 2023,
arXiv:2207.01570; UDRLPG, which needs no evaluator: Di Ventura et al., "Upside Down Reinforcement Learning with Policy
Generators", arXiv:2501.16288.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, pi
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mindworks.core.adam import Adam
from mindworks.core.hypernetwork import TiledHypernetwork
from mindworks.core.policy import INITIAL_LOG_STD, Actor, Policy
from mindworks.envs.rollout import Trajectories
from mindworks.errors import InputError, require, require_at_least
from mindworks.policies.pssvf import PSSVF, PSSVFConfig


@dataclass(frozen=True)
class GoGePoConfig(PSSVFConfig):
    """Hyperparameters of GoGePo. `lr_policy` and `policy_steps` are the generator's, `critic_*` the evaluator's.

    The defaults are the robust recipe that the study uses, not the published ones.
    """

    population: int = 8
    """policies tried per generation"""
    probes: int = 20
    """probing states of the evaluator; it must have some, to judge policies that no one has played"""
    critic_hidden: tuple[int, ...] = (32, 32)
    """hidden sizes of the evaluator"""
    lr_policy: float = 3e-4
    """Adam step size of the generator"""
    critic_steps: int = 5
    """evaluator steps per episode"""
    policy_steps: int = 5
    """generator steps per episode, after the evaluator's"""
    lr_critic: float = 3e-3
    """Adam step size of the evaluator"""
    ensemble: int = 3
    """evaluators per seed; the generator must satisfy all of them"""
    batch: int = 32
    """policies per evaluator step"""
    generator_batch: int = 32
    """commands per generator step"""
    recency: float = 1.1
    """a policy of age a = 1, 2, ... is drawn with a probability in proportion to 1 / a^recency; 0 is uniform"""
    return_low: float = 0.0
    """return that is 0 in the scale of commands"""
    return_high: float = 500.0
    """return that is 1 in the scale of commands; no higher one is commanded"""
    drive: float = 20.0
    """by how much exploring commands exceed the best return seen, in units of return"""
    explore: float = 0.5
    """share of the commands that explore, rounded to whole policies; the others are spread evenly over the range of
    returns seen"""
    noise: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    """standard deviations of the Gaussian noise on generated parameters; every policy draws one of them"""
    settling: int = 16
    """random policies at the start that only fit the observation normalisation, which then stays as it is; 0 leaves it
    running, and stored policies then change their meaning with it"""
    warmup: int = 64
    """random policies after that, the first ones in the replay"""
    replayed: float = 0.5
    """share of the generator's commands that are returns from the replay; the others are even over their range"""
    buckets: int = 0
    """how many equal ranges of return the replay is drawn from in equal shares; 0 draws by recency alone"""
    cosines: int = 8
    """cosine features of a command; 0 gives the generator the scaled command itself"""
    average: float = 0.99
    """decay per step of the running mean of the generator's weights that makes the policies; 0 uses the weights"""
    closing: int = 0
    """environment steps after which commands no longer explore, noise is a quarter and every second policy has none; 0:
    never"""
    stochastic: bool = False
    """whether the policies that are tried sample their actions; the head must be discrete or Gaussian"""
    tile: int = 8
    """side of the weight tiles that the generator makes"""
    embedding: int = 8
    """numbers in the learned embedding of a tile"""
    generator_hidden: tuple[int, ...] = (64, 64)
    """hidden sizes of the generator's networks"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "probes", "generator_batch", "tile", "embedding")
        require_at_least(self, 0, "drive", "settling", "warmup", "buckets", "cosines", "closing")
        require(
            -inf < self.return_low < self.return_high < inf,
            f"return_low must be finite and below a finite return_high, got {self.return_low} and {self.return_high}",
        )
        require(0 <= self.explore <= 1, f"explore must be in [0, 1], got {self.explore}")
        require(0 <= self.replayed <= 1, f"replayed must be in [0, 1], got {self.replayed}")
        require(0 <= self.average < 1, f"average must be in [0, 1), got {self.average}")
        require(
            len(self.noise) >= 1 and all(level >= 0 for level in self.noise),
            f"noise must not be negative, got {self.noise}",
        )
        require(self.storage != "seed", "storage must be float32 or float16: generated policies have no noise seed")
        require(
            len(self.generator_hidden) >= 1 and min(self.generator_hidden) >= 1,
            f"generator_hidden needs one or more positive sizes, got {self.generator_hidden}",
        )
        require(not self.log_returns, "log_returns must be False: commands are plain returns")


class GoGePo(PSSVF):
    """Learners of a generator G(command) -> theta, trained through a fingerprint evaluator V(theta).

    A generation commands N policies, plays G(c) plus noise, and stores what they achieved. Then the evaluator regresses
    the stored returns, and the generator minimises (V(G(c)) - c)^2 over commands c, mean over the evaluators, with the
    evaluators frozen. `theta` is the policy for the best return in the replay, so `Training` and `evaluate` work as
    they do for the PSSVF. S seeds, N policies, P parameters of one policy, R parameters of one generator `rho[S, R]`.
    """

    config: GoGePoConfig

    def __init__(self, policy: Policy, config: GoGePoConfig | None = None, seeds: Sequence[int] = (0,)) -> None:
        config = config or GoGePoConfig()
        super().__init__(policy, config, seeds)
        self.generator = TiledHypernetwork(
            policy.network,
            conditions=max(1, config.cosines),
            tile=config.tile,
            embedding=config.embedding,
            hidden=config.generator_hidden,
            extra=policy.num_parameters - policy.network.num_parameters,
        )
        self.rho = self.streams.draw(lambda g: self.generator.init(generator=g))
        self.mean_rho = self.rho.clone()
        self.policy_adam = Adam(self.rho, config.lr_policy)

    def generate(self, commands: Tensor) -> Tensor:
        """Policies `[S, B, P]` for the returns `commands[S, B]`, or `[B]` for all seeds."""
        rho = self.mean_rho if self.config.average else self.rho
        with torch.no_grad():
            return self.generator.forward(rho, self._features(commands.expand(len(self.streams), -1)))

    def seen(self) -> Tensor:
        """Lowest and highest return stored, `[S, 2]`; return_low for both before any."""
        low = self.config.return_low
        values = [self.replay.values(s) for s in range(len(self.streams))]
        return torch.tensor([[float(v.min()), float(v.max())] if len(v) else [low, low] for v in values])

    def _features(self, commands: Tensor) -> Tensor:
        """What the generator sees of `commands[..., B]`: `[..., B, C]`."""
        low, high = self.config.return_low, self.config.return_high
        # beyond the range a cosine would show the mirror image of another command
        scaled = ((commands - low) / (high - low)).clamp(0, 1).float().unsqueeze(-1)
        if not self.config.cosines:
            return scaled
        # half turns 1 to C over a range half as wide again, so that no two commands of the range look alike
        return torch.cos(scaled * pi / 1.5 * torch.arange(1, self.config.cosines + 1))

    def ask(self) -> Tensor:
        """Policies `[S, N, P]` to try: random ones at first, then generated ones with noise."""
        count = self.config.population
        done = int(self.episodes.max())
        if done < self.config.settling + self.config.warmup:
            return self._rounded(self.streams.draw(lambda g: self._random(count, g)))
        closing = self._closing()
        levels = torch.tensor(self.config.noise)
        drawn = levels[self.streams.draw(lambda g: torch.randint(len(levels), (count,), generator=g))]
        # by turns, or every second part of the range would never be played as it is
        still = (torch.arange(count) + torch.from_numpy(self.episodes // count).unsqueeze(-1)) % 2 == 0
        drawn = torch.where(closing.unsqueeze(-1), drawn / 4 * ~still, drawn)
        noise = self.streams.draw(lambda g: torch.randn(count, self.policy.num_parameters, generator=g))
        return self._rounded(self.generate(self._commands(closing)) + drawn.unsqueeze(-1) * noise)

    def actor(self, theta: Tensor, *, stochastic: bool | None = None, policy: Policy | None = None) -> Actor:
        """The acting side of `theta[S, ..., P]`; it samples actions if the configuration says so."""
        sampled = self.config.stochastic if stochastic is None else stochastic
        return super().actor(theta, stochastic=sampled, policy=policy)

    def _closing(self) -> Tensor:
        """Which seeds are in their closing phase, bool `[S]`."""
        return torch.from_numpy((self.steps >= self.config.closing) & (self.config.closing > 0))

    def _commands(self, closing: Tensor) -> Tensor:
        """Commands `[S, N]` for playing: even ones over the range seen, jittered, and exploring ones among them."""
        count = self.config.population
        low, best = self.seen().unbind(-1)
        even = self.streams.draw(lambda g: (torch.arange(count) + torch.rand(count, generator=g)) / count)
        commands = low.unsqueeze(-1) + (best - low).unsqueeze(-1) * even
        further = (best + self.config.drive).clamp_max(self.config.return_high)
        exploring = round(self.config.explore * count)
        order = self.streams.draw(lambda g: torch.randperm(count, generator=g))
        # which of the even commands give way is drawn anew, or a part of the range would never be commanded
        return torch.where((order < exploring) & ~closing.unsqueeze(-1), further.unsqueeze(-1), commands)

    def _random(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` policies with normal weights of standard deviation 2 / sqrt(fan_in), as large as the generator's."""
        theta = torch.randn(count, self.policy.num_parameters, generator=generator)
        weights, log_std = self.policy.split(theta)
        for weight, bias in self.policy.network.unflatten(weights):
            scale = 2 * weight.shape[-1] ** -0.5
            weight.mul_(scale)
            bias.mul_(scale)
        log_std.fill_(INITIAL_LOG_STD)
        return theta

    def _rounded(self, theta: Tensor) -> Tensor:
        """What the replay will hold, so that what is stored is what acted."""
        return theta.half().float() if self.config.storage == "float16" else theta

    def tell(self, theta: Tensor, episodes: Trajectories, active: np.ndarray | None = None) -> None:
        """As every learner; the first `settling` policies fit the observation normalisation and are then forgotten."""
        settling = int(self.episodes.max()) < self.config.settling
        super().tell(theta, episodes, active)
        if settling and int(self.episodes.max()) >= self.config.settling:
            self.replay.clear()
            self.norm.freeze()

    def _learn(self, episodes: int, steps: np.ndarray, active: np.ndarray) -> None:
        done = int(self.episodes.max())
        if done < self.config.settling + self.config.warmup or done - episodes < self.config.settling:
            return
        self._fit(episodes, active)
        best = self.seen()[:, 1:]
        self.theta = torch.where(torch.from_numpy(active)[:, None], self.generate(best).squeeze(1), self.theta)

    def _fit(self, episodes: int, active: np.ndarray) -> None:
        """Evaluator steps, then generator steps."""
        self.fit_critic(self.config.critic_steps * episodes, active)
        commands = self._training_commands(self.config.policy_steps * episodes, active)
        targets = (commands - self.center.unsqueeze(-1)) / self.scale.unsqueeze(-1)
        parts = self.generator.leaves(self.rho)
        for c, target in zip(commands.unbind(1), targets.float().unbind(1), strict=True):
            predicted = self.critic.values(self.phi, self.generator.apply(parts, self._features(c)))
            loss = (predicted - target.unsqueeze(1)).square().mean((1, 2)).sum()
            self._descend(loss, parts, active)

    def _training_commands(self, steps: int, active: np.ndarray) -> Tensor:
        """Commands `[S, steps, B]` for the generator's steps: returns of the replay, then even ones."""
        batch = self.config.generator_batch
        count = round(self.config.replayed * batch)
        replayed = self.replay.policies.gather("value", self._draw((steps, count), active))
        low, best = self.seen().double().unbind(-1)
        span = (best + self.config.drive).clamp_max(self.config.return_high) - low
        shape = (steps, batch - count)
        even = torch.zeros(len(active), *shape, dtype=torch.float64)
        for s in np.flatnonzero(active):
            torch.rand(shape, generator=self.streams.torch[s], out=even[s])
        return torch.cat([replayed, low[:, None, None] + span[:, None, None] * even], -1)

    def _descend(self, loss: Tensor, parts: list[Tensor], active: np.ndarray) -> None:
        gradients = torch.autograd.grad(loss, parts)
        self.policy_adam.step(self.generator.flatten(gradients), active)
        if self.config.average:
            kept = torch.from_numpy(active)[:, None]
            self.mean_rho.lerp_(torch.where(kept, self.rho, self.mean_rho), 1 - self.config.average)

    def _draw(self, shape: tuple[int, ...], active: np.ndarray | None = None) -> Tensor:
        if not self.config.buckets:
            return self.replay.draw(self.streams, shape, active)
        return self.replay.draw_buckets(self.streams, shape, self.config.buckets, active)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "rho": self.rho, "mean_rho": self.mean_rho}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.rho.copy_(state["rho"])
        self.mean_rho.copy_(state["mean_rho"])


class UDRLPG(GoGePo):
    """The generator without an evaluator: it learns to write the stored policies themselves, given their returns.

    It minimises the squared error |G(r) - theta|^2 / P over stored pairs of a policy and its return r. Without
    `buckets` the replay is drawn by recency.
    """

    def value(self, theta: Tensor, policy: Policy | None = None) -> Tensor:
        """There is none: raises `InputError`."""
        raise InputError("value: UDRLPG has no evaluator")

    def _fit(self, episodes: int, active: np.ndarray) -> None:
        slots = self._draw((self.config.policy_steps * episodes, self.config.generator_batch), active)
        parts = self.generator.leaves(self.rho)
        for chosen in slots.unbind(1):
            made = self.generator.apply(parts, self._features(self.replay.policies.gather("value", chosen)))
            loss = (made - self.replay.theta(chosen)).square().mean((1, 2)).sum()
            self._descend(loss, parts, active)
