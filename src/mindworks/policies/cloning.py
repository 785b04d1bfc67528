"""Behaviour cloning from a few states: students copy what a teacher does there, and nowhere else.

Faccio et al., "General Policy Evaluation and Improvement by Learning to Identify Few But Crucial States",
arXiv:2207.01566, clone good policies from the three to five probing states that a critic has learned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mindworks.core.adam import Adam
from mindworks.core.policy import Categorical, Policy
from mindworks.errors import require


def clone(
    teacher: Policy,
    theta_teacher: Tensor,
    states: Tensor,
    student: Policy,
    theta: Tensor,
    *,
    steps: int,
    lr: float,
) -> Tensor:
    """Parameters `[S, N, P]` of students that start as `theta[S, N, P]` and imitate `theta_teacher[S, P']` in K states.

    `states` are `[S, K, D]`, or `[S, N, K, D]` where every student has its own; they are in units of normalised
    observations, as the policies see them. The loss is the cross-entropy of the action probabilities for discrete
    actions, and the squared error of the policy's `features` for continuous ones. Every student takes `steps` of Adam
    by itself; the inputs are left as they were. `teacher` and `student` may be of different architectures over the
    same observations and actions.
    """
    require(steps >= 0, f"steps must not be negative, got {steps}")
    require(theta.ndim == 3, f"theta must be [S, N, P], got shape {tuple(theta.shape)}")
    require(states.ndim in (3, 4), f"states must be [S, K, D] or [S, N, K, D], got shape {tuple(states.shape)}")
    require(
        (teacher.head, teacher.network.sizes[0]) == (student.head, student.network.sizes[0]),
        f"student must have the teacher's observations and actions, got {student.network.sizes} and {student.head}",
    )
    inputs = states.detach() if states.ndim == 4 else states.detach().unsqueeze(1)
    with torch.no_grad():
        target = teacher.features(theta_teacher.unsqueeze(1), inputs)
    parameters = theta.detach().clone()
    flat = parameters.flatten(0, 1)
    adam = Adam(flat, lr)
    for _ in range(steps):
        flat.requires_grad_(True)
        (gradient,) = torch.autograd.grad(_distance(student, flat.view_as(theta), inputs, target), flat)
        flat.requires_grad_(False)
        adam.step(gradient)
    return flat.view_as(theta)


def _distance(policy: Policy, theta: Tensor, states: Tensor, target: Tensor) -> Tensor:
    """Mean over the states, sum over the students, so that each student descends its own."""
    if isinstance(policy.head, Categorical):
        return -(target * policy.logits(policy.outputs(theta, states)).log_softmax(-1)).sum(-1).mean(-1).sum()
    return (policy.features(theta, states) - target).square().sum(-1).mean(-1).sum()
