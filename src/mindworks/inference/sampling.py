"""Draws from normal distributions with a generator of one's own; torch.distributions would use the global one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily, MultivariateNormal, Normal

from mindworks.errors import InputError


def draw(q: Distribution, count: int, generator: torch.Generator | None) -> Tensor:
    """`count` draws `[count, *batch, *event]` of a normal, diagonal or full, or of a mixture of such.

    Draws of a normal are differentiable in its parameters; those of a mixture are not.
    """
    if isinstance(q, Independent):
        return draw(q.base_dist, count, generator)
    if isinstance(q, (Normal, MultivariateNormal)):
        shape = (count, *q.batch_shape, *q.event_shape)
        noise = torch.randn(shape, generator=generator, dtype=q.mean.dtype)
        if isinstance(q, Normal):
            return q.loc + q.scale * noise
        return q.loc + (q.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
    if isinstance(q, MixtureSameFamily):
        weight = q.mixture_distribution.probs
        uniform = torch.rand((count, *q.batch_shape), generator=generator, dtype=weight.dtype)
        component = (uniform.unsqueeze(-1) > weight.cumsum(-1)[..., :-1]).sum(-1)
        each = draw(q.component_distribution, count, generator).detach()
        events = len(q.event_shape)
        index = component.reshape(*component.shape, 1, *[1] * events).expand(*component.shape, 1, *q.event_shape)
        return each.gather(component.dim(), index).squeeze(component.dim())
    raise InputError(f"q must be a normal, or a mixture of normals, to be drawn from, got {type(q).__name__}")
