"""A training step of our VIN and GPPN against the published models, written plainly from their description.

The models are those that "Gated Path Planning Networks" (arXiv:1806.06408) compares, at its sizes for 15 x 15 mazes. In
every layer, its VIN lays rewards over values and convolves both with both kernels at once; ours convolves the rewards
once and adds the result in every layer, which costs more than it saves where there are 600 actions. Its GPPN is ours
but for the order of a map's cells, which it turns around in every step. Kernels of 600 actions and 5 x 5 taps are
beyond our fused operator, so that both sides of that row run convolutions of torch; the last row has the 10 actions,
3 x 3 taps and 60 layers of our studies, which the operator takes.

Both sides have the same parameters, and must give the same logits and gradients first. A step is the forward and the
backward pass of 32 mazes of 15 x 15 that move NEWS, with the cross-entropy of the last layer over all states that reach
the goal; the optimizer is left out. No bars: the rows say what is gained and lost.
Run: `python benchmarks/vs_gppn_planners.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import _bench  # before torch: it asks for one thread

import torch  # isort: skip
from torch import Tensor, nn
from torch.nn.functional import conv2d

from mindworks.planning import GPPN, VIN, GPPNConfig, Mazes, VINConfig, generate, planning_loss

MAZES, SIZE = 32, 15


class PlainVIN(nn.Module):
    """A VIN that sees rewards and values as two channels of one convolution, with the parameters of ours."""

    def __init__(self, ours: VIN) -> None:
        super().__init__()
        window, latent = ours.config.window, ours.config.latent_actions
        self.depth, self.pad = ours.depth, window // 2
        self.hidden, self.reward, self.policy = (copied(part) for part in (ours.hidden, ours.reward, ours.policy))
        self.reward_kernel, self.value_kernel = (
            nn.Parameter(kernel.detach().clone().view(latent, 1, window, window))
            for kernel in (ours.reward_kernel, ours.value_kernel)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits `[B, A, H, W]`."""
        reward = self.reward(self.hidden(inputs))
        values = conv2d(reward, self.reward_kernel, padding=self.pad).max(1, keepdim=True)[0]
        for _ in range(self.depth - 1):
            values = self.q_values(reward, values).max(1, keepdim=True)[0]
        return self.policy(self.q_values(reward, values))

    def q_values(self, reward: Tensor, values: Tensor) -> Tensor:
        """Q of every latent action."""
        both, kernels = torch.cat([reward, values], 1), torch.cat([self.reward_kernel, self.value_kernel], 1)
        return conv2d(both, kernels, padding=self.pad)


class PlainGPPN(nn.Module):
    """A GPPN that holds a state as rows of columns, turned around for the convolution and back, with our parameters."""

    def __init__(self, ours: GPPN) -> None:
        super().__init__()
        self.depth, self.size = ours.depth, ours.config.hidden
        parts = (ours.hidden, ours.start, ours.memory, ours.gather, ours.policy)
        self.hidden, self.start, self.memory, self.gather, self.policy = map(copied, parts)
        self.cell = nn.LSTMCell(1, self.size)
        self.cell.load_state_dict(ours.cell.state_dict())

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits `[B, A, H, W]` of square maps."""
        features, side = self.hidden(inputs), inputs.shape[-1]
        state, memory = self.as_rows(self.start(features)), self.as_rows(self.memory(features))
        for _ in range(self.depth - 1):
            around = self.gather(self.as_maps(state, side))
            state, memory = self.cell(around.transpose(1, 3).contiguous().view(-1, 1), (state, memory))
        return self.policy(self.as_maps(state, side))

    def as_rows(self, maps: Tensor) -> Tensor:
        """`[B * W * H, channels]` from `[B, channels, H, W]`."""
        return maps.transpose(1, 3).contiguous().view(-1, self.size)

    def as_maps(self, rows: Tensor, side: int) -> Tensor:
        """The way back."""
        return rows.view(-1, side, side, self.size).transpose(3, 1)


def copied(layer: nn.Conv2d) -> nn.Conv2d:
    """A convolution of its own with the same parameters."""
    out, size = layer.weight.shape[0], layer.kernel_size
    copy = nn.Conv2d(layer.in_channels, out, size, padding=layer.padding, bias=layer.bias is not None)
    copy.load_state_dict(layer.state_dict())
    return copy


def step(model: nn.Module, mazes: Mazes) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and the gradients of all parameters."""
    logits = model(mazes.inputs()).view(len(mazes), 4, 1, SIZE, SIZE)
    loss = planning_loss(logits[None], mazes.target(), mazes.distances, [model.depth], "last")
    named = dict(model.named_parameters())
    return logits.detach(), dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def same(case: str, ours: nn.Module, peer: nn.Module, mazes: Mazes) -> None:
    """Stop unless both sides give the same logits and gradients; a maximum of two equals may fall either way."""
    (found, gradients), (expected, wanted) = step(ours, mazes), step(peer, mazes)
    apart = float((found - expected).abs().max() / expected.abs().max())
    if not apart < 1e-4:
        raise SystemExit(f"the sides differ: logits of {case} by {apart:.1e}")
    for name, gradient in wanted.items():
        apart = float((gradients[name].view_as(gradient) - gradient).norm() / gradient.norm())
        if not apart < 1e-2:
            raise SystemExit(f"the sides differ: gradient of {name} of {case} by {apart:.1e}")


def timed(case: str, ours: VIN | GPPN, plain: Callable[[Any], nn.Module], repeats: int) -> dict[str, Any]:
    """A row of one training step."""
    mazes, peer = generate(MAZES, SIZE, seed=0), plain(ours)
    mazes.target()  # labels are found once, before the clock runs
    same(case, ours, peer, mazes)
    taken = _bench.compare(lambda: step(ours, mazes), lambda: step(peer, mazes), repeats=repeats, warmup=0)
    parameters = sum(parameter.numel() for parameter in ours.parameters())
    return _bench.row(case, *taken, bar=0, layers=ours.depth, parameters=parameters, repeats=repeats)


def main() -> int:
    torch.set_num_threads(1)
    start = torch.Generator().manual_seed(0)
    large = VIN("news", 20, VINConfig(hidden=150, latent_actions=600, window=5), generator=start)
    gated = GPPN("news", 20, GPPNConfig(hidden=150, window=11), generator=start)
    small = VIN("news", 60, VINConfig(hidden=150, latent_actions=10, window=3), generator=start)
    rows = [
        timed("VIN, 600 latent actions, 5 x 5 taps, 20 layers", large, PlainVIN, repeats=5),
        timed("GPPN, 150 hidden, 11 x 11 taps, 20 layers", gated, PlainGPPN, repeats=5),
        timed("VIN, 10 latent actions, 3 x 3 taps, 60 layers", small, PlainVIN, repeats=9),
    ]
    return 0 if _bench.write("vs_gppn_planners", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
