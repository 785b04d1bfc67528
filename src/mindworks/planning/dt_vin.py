"""Dynamic-transition value iteration networks: a transition kernel of its own for every cell of every map.

Wang, Wu, Ashley, Faccio, Li, Huang and Schmidhuber, "Scaling Value Iteration Networks to 5000 Layers for Extreme
Long-Term Planning", ICML 2025, arXiv:2406.08404.

Shape legend: that of `mindworks.planning.planner`; F is the window, and a state has `O * F * F` neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mindworks.errors import require, require_at_least
from mindworks.planning.mechanisms import Mechanism
from mindworks.planning.planner import LatentMDP, ValueIterationPlanner, convolution, convolve, draw
from mindworks.planning.priors import move_taps, reward_free_and_goal, stay_taps
from mindworks.planning.value_iteration import window

KERNELS = ("dynamic", "state", "observation", "invariant")
GAINS = ("tied", "arrival")  # heads of one parameter
HEADS = ("free", "zero_sum", "tied", "arrival")


@dataclass(frozen=True)
class DTVINConfig:
    """Sizes of a DT-VIN and what it knows beforehand; `paper_dt_vin` gives one that knows nothing."""

    hidden: int = 40
    """channels between the map and the reward"""
    window: int = 3
    """height and width of a transition kernel, cells"""
    kernel: str = "dynamic"
    """what a kernel depends on: `dynamic` (cell and map), `state` (cell), `observation` (map), `invariant` (nothing)"""
    height: int = 0
    """rows of the maps, for `state` kernels only"""
    width: int = 0
    """columns of the maps, for `state` kernels only"""
    head: str = "tied"
    """how logits are read off the values: `free` (any 3 x 3 convolution), `zero_sum` (one whose taps sum to nothing),
    `tied` (the value where the action leads, minus the value here, times one learned gain), `arrival` (the same of
    reward and value: where neighbours of the goal are neighbours of each other, their values alone are the same)"""
    head_direction: float = 1.0
    """what a `free` or `zero_sum` head starts with on the tap that an action aims at; 0 starts at random"""
    reward_prior: bool = True
    """whether the reward starts at 2 for the goal, 1 for open cells, 0 for walls; at random otherwise"""
    move_bias: float = 1.0
    """what a kernel's logits start with on the tap that an action aims at"""
    stay_bias: float = 8.0
    """what a kernel's logits at the goal start with on the goal itself"""

    def __post_init__(self) -> None:
        require_at_least(self, 1, "hidden")
        require(self.window >= 3 and self.window % 2 == 1, f"window must be odd and at least 3, got {self.window}")
        require(self.kernel in KERNELS, f"kernel must be one of {', '.join(KERNELS)}, got {self.kernel!r}")
        require(self.head in HEADS, f"head must be one of {', '.join(HEADS)}, got {self.head!r}")
        if self.kernel == "state":
            require_at_least(self, 1, "height", "width")


def paper_dt_vin(hidden: int = 40, kernel: str = "dynamic") -> DTVINConfig:
    """A DT-VIN that starts at random everywhere, as the paper's do; the form of the head and the sizes are ours."""
    return DTVINConfig(
        hidden=hidden,
        kernel=kernel,
        head="free",
        head_direction=0.0,
        reward_prior=False,
        move_bias=0.0,
        stay_bias=0.0,
    )


class DTVIN(ValueIterationPlanner):
    """`V'(s) = max_a sum_s' T_a(s, s') (R(s') + V(s'))`, with `T = softmax(sharpness * f_T(map))` over the window.

    `T` depends on the map alone, so that it is computed once for all layers. `sharpness` is no parameter: training may
    raise it (see `TrainingConfig.sharpness`), and `fold` multiplies it into `f_T`.
    """

    sharpens = True
    sharpness: Tensor

    def __init__(
        self,
        mechanism: str | Mechanism = "news",
        depth: int = 60,
        config: DTVINConfig | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(mechanism, depth)
        self.config = config = DTVINConfig() if config is None else config
        orientations, actions = self.mechanism.orientations, self.mechanism.actions
        if config.reward_prior:
            require(config.hidden >= orientations, f"hidden must be at least {orientations}, got {config.hidden}")
        self.taps = orientations * config.window**2
        inputs, rows = 1 + orientations, orientations * actions * self.taps
        self.hidden = convolution(inputs, config.hidden, 3)
        self.reward = convolution(config.hidden, orientations, 1, bias=False)
        self.transition: nn.Conv2d | None = None
        if config.kernel in ("dynamic", "observation"):
            self.transition = convolution(inputs, rows, 3)
        else:
            size = (config.height, config.width) if config.kernel == "state" else (1, 1)
            self.kernel = nn.Parameter(torch.zeros(1, orientations, actions, self.taps, *size))
        if config.head in GAINS:
            self.log_gain = nn.Parameter(torch.zeros(()))
        else:
            self.head = nn.Parameter(torch.zeros(orientations, actions, orientations, 3, 3))
        self.register_buffer("sharpness", torch.ones(()))
        self.reset(generator)

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters anew, then lay the priors of the configuration over them."""
        config = self.config
        self.sharpness.fill_(1)
        draw([self.hidden, self.reward], generator)
        if self.transition is None:
            self.kernel.normal_(0, 0.1, generator=generator)
        else:
            draw([self.transition], generator)
        if config.head in GAINS:
            self.log_gain.zero_()
        else:
            direction = config.head_direction
            bound = (0.1 if direction else 1.0) * self.head[0, 0].numel() ** -0.5
            self.head.uniform_(-bound, bound, generator=generator)
            flat = self.head.flatten(2)
            moves = move_taps(self.mechanism, 3)[..., None].to(flat.device)
            flat.scatter_add_(2, moves, torch.full_like(flat[..., :1], direction))
        if config.reward_prior:
            reward_free_and_goal(self.hidden, self.reward)
        self._kernel_priors()

    def _kernel_priors(self) -> None:
        config, moves = self.config, move_taps(self.mechanism, self.config.window)
        orientations, actions = moves.shape
        start = torch.zeros(orientations, actions, self.taps).scatter_(2, moves[..., None], config.move_bias)
        if self.transition is None:
            self.kernel.add_(start[None, ..., None, None].to(self.kernel))
            return
        assert self.transition.bias is not None
        self.transition.bias.add_(start.flatten().to(self.transition.bias))
        weight = self.transition.weight.view(orientations, actions, self.taps, *self.transition.weight.shape[1:])
        for o, tap in enumerate(stay_taps(self.mechanism, config.window)):
            weight[o, :, tap, 1 + o, 1, 1] += config.stay_bias

    def model(self, inputs: Tensor) -> LatentMDP:
        around = window(inputs, 3)
        reward = convolve(convolve(around, self.hidden), self.reward)
        if self.transition is None:
            scores = self.kernel
            if self.config.kernel == "state":
                size = tuple(self.kernel.shape[-2:])
                given = tuple(inputs.shape[-2:])
                require(given == size, f"inputs must have the maps' size {size}, got {given}")
        else:
            shape = (self.mechanism.orientations, self.mechanism.actions, self.taps)
            scores = convolve(around, self.transition).unflatten(1, shape)
            if self.config.kernel == "observation":
                scores = scores.mean((-2, -1), keepdim=True)
        return LatentMDP((self.sharpness * scores).softmax(3), reward)

    def read(self, latent: LatentMDP, values: Tensor) -> Tensor:
        kept, batch = values.shape[:2]
        shape = (self.mechanism.orientations, self.mechanism.actions)
        if self.config.head == "arrival":
            assert latent.reward is not None
            values = values + latent.reward
        around = window(values.flatten(0, 1), 3)
        head = self.head_kernel().flatten(2).flatten(0, 1)
        out = torch.bmm(head.expand(kept * batch, *head.shape), around.flatten(2))
        return out.view(kept, batch, *shape, *values.shape[-2:]).transpose(2, 3)

    def head_kernel(self) -> Tensor:
        """The head as a convolution of values, `[O, A, O, 3, 3]`."""
        if self.config.head == "free":
            return self.head
        moves, stays = move_taps(self.mechanism, 3), stay_taps(self.mechanism, 3)
        orientations, actions = moves.shape
        if self.config.head in GAINS:
            flat = self.log_gain.exp() * torch.zeros(
                orientations, actions, orientations * 9, dtype=self.log_gain.dtype
            ).scatter_(2, moves[..., None], 1.0).to(self.log_gain.device)
        else:
            flat = self.head.flatten(2)
        here = nn.functional.one_hot(stays, orientations * 9)[:, None].to(flat)
        return (flat - flat.sum(2, keepdim=True) * here).unflatten(2, (orientations, 3, 3))

    @torch.no_grad()
    def fold(self) -> None:
        """Multiply `sharpness` into the parameters of `f_T` and set it to 1: the same planner, with nothing extra."""
        parameters = [self.kernel] if self.transition is None else list(self.transition.parameters())
        for parameter in parameters:
            parameter.mul_(self.sharpness)
        self.sharpness.fill_(1)
