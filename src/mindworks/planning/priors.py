"""What a planner may know before it learns: which tap of a window an action aims at, and that goals are worth reaching.

None of it is in the published planners; each prior is switched by a field of its planner's configuration.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mindworks.errors import require
from mindworks.planning.mechanisms import Mechanism


def move_taps(mechanism: Mechanism, size: int) -> Tensor:
    """`[O, A]`: the tap, among the `O * size * size` of a window, of the state that each action aims at."""
    middle = size // 2
    reach = max(abs(step) for moves in mechanism.moves for _, *steps in moves for step in steps)
    require(middle >= reach, f"window must be at least {2 * reach + 1}, got {size}")
    taps = [[(o * size + middle + down) * size + middle + right for o, down, right in row] for row in mechanism.moves]
    return torch.tensor(taps)


def stay_taps(mechanism: Mechanism, size: int) -> Tensor:
    """`[O]`: the tap of the state itself."""
    middle = size // 2
    return torch.tensor([(o * size + middle) * size + middle for o in range(mechanism.orientations)])


def reward_free_and_goal(hidden: nn.Conv2d, reward: nn.Conv2d) -> None:
    """Set two linear layers so that the reward is 2 at the goal, 1 elsewhere in the open, and 0 in walls.

    `hidden` keeps the centre taps that make it so, and nothing else; both layers stay trainable.
    """
    outputs, width = reward.weight.shape[:2]
    weight = reward.weight.detach().reshape(outputs, width)
    wanted = torch.zeros(outputs, hidden.weight.shape[1])  # the reward of each orientation, per input channel
    wanted[:, 0] = 1
    wanted[torch.arange(outputs), 1 + torch.arange(outputs)] = 1
    centre = hidden.weight.shape[-1] // 2
    with torch.no_grad():
        hidden.weight.zero_()
        hidden.weight[:, :, centre, centre] = torch.linalg.pinv(weight) @ wanted.to(weight)
        if hidden.bias is not None:
            hidden.bias.zero_()
