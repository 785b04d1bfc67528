"""Value iteration networks: one transition kernel for all cells, as a convolution.

Tamar, Wu, Thomas, Levine and Abbeel, "Value Iteration Networks", NIPS 2016, arXiv:1602.02867.

Shape legend: that of `mindworks.planning.planner`; L latent actions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mindworks.errors import require, require_at_least
from mindworks.planning.mechanisms import Mechanism
from mindworks.planning.planner import LatentMDP, ValueIterationPlanner, convolution, convolve, draw
from mindworks.planning.priors import move_taps, reward_free_and_goal
from mindworks.planning.value_iteration import q_values, window

STARTS = ("zero", "normal", "moves")


@dataclass(frozen=True)
class VINConfig:
    """Sizes of a VIN and what it knows beforehand; the defaults know nothing."""

    hidden: int = 40
    """channels between the map and the reward"""
    latent_actions: int = 10
    """latent actions per state"""
    window: int = 3
    """height and width of the kernels, cells"""
    start: str = "normal"
    """how the value kernels start: `zero` (as in the reference code), `normal` (deviation 0.1), or `moves`: latent
    action a takes reward and value of the state that real action a leads to, give or take noise of deviation 0.05"""
    softmax: bool = False
    """whether the kernels are softmax(sharpness * parameters), as those of a DT-VIN"""
    tied: bool = False
    """whether logits are the Q values of the first latent actions times one learned gain, not any 1 x 1 convolution"""
    reward_prior: bool = False
    """whether the reward starts at 2 for the goal, 1 for open cells, 0 for walls; at random otherwise"""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "hidden", "latent_actions")
        require(self.window >= 3 and self.window % 2 == 1, f"window must be odd and at least 3, got {self.window}")
        require(self.start in STARTS, f"start must be one of {', '.join(STARTS)}, got {self.start!r}")


def informed_vin(softmax: bool = False) -> VINConfig:
    """A VIN with the priors that `DTVINConfig` gives a DT-VIN, as far as a VIN can hold them."""
    return VINConfig(start="moves", softmax=softmax, tied=True, reward_prior=True)


class VIN(ValueIterationPlanner):
    """`Q_a = W^R_a * R + W^V_a * V`, `V' = max_a Q_a`, and logits from one more Q by a 1 x 1 convolution."""

    sharpness: Tensor

    def __init__(
        self,
        mechanism: str | Mechanism = "news",
        depth: int = 30,
        config: VINConfig | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(mechanism, depth)
        self.config = config = VINConfig() if config is None else config
        orientations, actions, latent = self.mechanism.orientations, self.mechanism.actions, config.latent_actions
        if config.reward_prior:
            require(config.hidden >= orientations, f"hidden must be at least {orientations}, got {config.hidden}")
        if config.tied or config.start == "moves":
            require(latent >= actions, f"latent_actions must be at least {actions}, got {latent}")
        taps = orientations * config.window**2
        self.hidden = convolution(1 + orientations, config.hidden, 3)
        self.reward = convolution(config.hidden, orientations, 1, bias=False)
        self.reward_kernel = nn.Parameter(torch.zeros(1, orientations, latent, taps, 1, 1))
        self.value_kernel = nn.Parameter(torch.zeros(1, orientations, latent, taps, 1, 1))
        if config.tied:
            self.log_gain = nn.Parameter(torch.zeros(()))
        else:
            self.policy = convolution(orientations * latent, orientations * actions, 1, bias=False)
        self.register_buffer("sharpness", torch.ones(()))
        VIN.reset(self, generator)  # a subclass does the rest of its reset when it is whole

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew, then lay the priors of the configuration over them."""
        config = self.config
        self.sharpness.fill_(1)
        if config.tied:
            self.log_gain.zero_()
        draw([self.hidden, self.reward, *([] if config.tied else [self.policy])], generator)
        if config.start == "moves":
            self._aim(generator)
        else:
            bound = self.reward_kernel.shape[3] ** -0.5
            self.reward_kernel.uniform_(-bound, bound, generator=generator)
            self.value_kernel.normal_(0, 0.1, generator=generator).mul_(config.start == "normal")
        if config.reward_prior:
            reward_free_and_goal(self.hidden, self.reward)

    def _aim(self, generator: torch.Generator | None) -> None:
        moves = move_taps(self.mechanism, self.config.window)
        orientations, actions = moves.shape
        for kernel in (self.reward_kernel, self.value_kernel):
            kernel.normal_(0, 0.05, generator=generator)
            aimed = kernel[0, :, :actions, :, 0, 0]
            aimed.scatter_add_(2, moves[..., None].to(kernel.device), torch.ones_like(aimed[..., :1]))
        if not self.config.tied:
            self.policy.weight.mul_(0.1)
            weight = self.policy.weight.view(orientations, actions, orientations, -1)
            for o in range(orientations):
                weight[o, torch.arange(actions), o, torch.arange(actions)] += 1

    @property
    def sharpens(self) -> bool:  # type: ignore[override]
        return self.config.softmax

    def kernels(self) -> tuple[Tensor, Tensor]:
        """The kernels of rewards and of values, each `[1, O, L, O * F * F, 1, 1]`."""
        if not self.config.softmax:
            return self.reward_kernel, self.value_kernel
        return (self.sharpness * self.reward_kernel).softmax(3), (self.sharpness * self.value_kernel).softmax(3)

    def model(self, inputs: Tensor) -> LatentMDP:
        reward_kernel, value_kernel = self.kernels()
        reward = convolve(convolve(window(inputs, 3), self.hidden), self.reward)
        return LatentMDP(value_kernel, None, bias=q_values(reward_kernel, None, reward))

    def read(self, latent: LatentMDP, values: Tensor) -> Tensor:
        kept, batch = values.shape[:2]
        assert latent.bias is not None
        bias = latent.bias.expand(kept, *latent.bias.shape).flatten(0, 1)
        q = q_values(latent.transition, None, values.flatten(0, 1), bias=bias)
        if self.config.tied:
            logits = self.log_gain.exp() * q[:, :, : self.mechanism.actions]
        else:
            shape = (self.mechanism.orientations, self.mechanism.actions)
            logits = convolve(q.flatten(1, 2), self.policy).unflatten(1, shape)
        return logits.transpose(1, 2).unflatten(0, (kept, batch))

    @torch.no_grad()
    def fold(self) -> None:
        """Multiply `sharpness` into the kernels' parameters and set it to 1."""
        if self.config.softmax:
            self.reward_kernel.mul_(self.sharpness)
            self.value_kernel.mul_(self.sharpness)
        self.sharpness.fill_(1)
