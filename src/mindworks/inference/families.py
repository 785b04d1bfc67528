"""Families of q with flat parameters `theta[..., P]`: normal, mean-field normal, mixtures of mean-field normals.

Parameters are in units of a center and a scale of the target `[d]`, so that all are of order 1.
Shape legend: N points, d dimensions of s, P parameters, J components, `...` any leading dimensions. float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, MultivariateNormal, Normal

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class MeanField:
    """Independent normals: d means, then d log standard deviations."""

    center: Tensor
    scale: Tensor
    components: int = 1

    @property
    def dims(self) -> int:
        """Dimensions d of s."""
        return len(self.center)

    def start(self, mean: Tensor, std: Tensor) -> Tensor:
        """Parameters of the diagonal member whose J components have `mean[..., J, d]` and `std[..., J, d]`."""
        return torch.cat([(mean - self.center) / self.scale, (std / self.scale).log()], -1).squeeze(-2)

    def narrower(self, theta: Tensor, log_factor: float) -> Tensor:
        """The member with every standard deviation smaller by exp(-log_factor)."""
        mean, log_std = theta.split(self.dims, -1)
        return torch.cat([mean, log_std - log_factor], -1)

    def log_prob(self, theta: Tensor, s: Tensor) -> Tensor:
        """Log density `[..., N]` at `s[N, d]`."""
        mean, log_std = self._parts(theta)
        total = -(log_std.sum(-1, keepdim=True) + 0.5 * self.dims * LOG_2PI)
        for k in range(self.dims):
            total = total - 0.5 * ((s[:, k] - mean[..., k : k + 1]) * (-log_std[..., k : k + 1]).exp()).square()
        return total

    def distribution(self, theta: Tensor) -> Distribution:
        """The member as a torch distribution with batch `[...]`: over numbers where d = 1, else over vectors."""
        mean, log_std = self._parts(theta)
        if self.dims == 1:
            return Normal(mean.squeeze(-1), log_std.exp().squeeze(-1))
        return Independent(Normal(mean, log_std.exp()), 1)

    def _parts(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = theta.split(self.dims, -1)
        return self.center + self.scale * mean, log_std + self.scale.log()


@dataclass(frozen=True)
class FullNormal(MeanField):
    """Normals of any covariance: d means, d log diagonals of its Cholesky factor, then what is below the diagonal."""

    def start(self, mean: Tensor, std: Tensor) -> Tensor:
        """Parameters of the diagonal member with `mean[..., 1, d]` and `std[..., 1, d]`."""
        diagonal = super().start(mean, std)
        below = self.dims * (self.dims - 1) // 2
        return torch.cat([diagonal, diagonal.new_zeros(*diagonal.shape[:-1], below)], -1)

    def narrower(self, theta: Tensor, log_factor: float) -> Tensor:
        """The member with its Cholesky factor smaller by exp(-log_factor)."""
        mean, log_diagonal, below = self._split(theta)
        return torch.cat([mean, log_diagonal - log_factor, below * math.exp(-log_factor)], -1)

    def log_prob(self, theta: Tensor, s: Tensor) -> Tensor:
        """Log density `[..., N]` at `s[N, d]`."""
        mean, root = self._mean_and_root(theta)
        white = torch.linalg.solve_triangular(root, (s - mean.unsqueeze(-2)).mT, upper=False)
        log_volume = root.diagonal(dim1=-2, dim2=-1).log().sum(-1, keepdim=True)
        return -0.5 * (white.square().sum(-2) + self.dims * LOG_2PI) - log_volume

    def distribution(self, theta: Tensor) -> Distribution:
        """The member as a torch distribution with batch `[...]`: over numbers where d = 1, else over vectors."""
        mean, root = self._mean_and_root(theta)
        if self.dims == 1:
            return Normal(mean.squeeze(-1), root[..., 0, 0])
        return MultivariateNormal(mean, scale_tril=root)

    def _split(self, theta: Tensor) -> tuple[Tensor, ...]:
        return theta.split((self.dims, self.dims, theta.shape[-1] - 2 * self.dims), -1)

    def _mean_and_root(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_diagonal, below = self._split(theta)
        root = torch.diag_embed(log_diagonal.exp())
        row, column = torch.tril_indices(self.dims, self.dims, -1)
        root[..., row, column] = below
        return self.center + self.scale * mean, self.scale.unsqueeze(-1) * root


@dataclass(frozen=True)
class Mixture(MeanField):
    """Mixtures of J mean-field normals: J log weights, then the parameters of each component."""

    components: int = 2

    def start(self, mean: Tensor, std: Tensor) -> Tensor:
        """Parameters of the mixture with equal weights, `mean[..., J, d]` and `std[..., J, d]`."""
        each = torch.cat([(mean - self.center) / self.scale, (std / self.scale).log()], -1).flatten(-2)
        return torch.cat([each.new_zeros(*each.shape[:-1], self.components), each], -1)

    def narrower(self, theta: Tensor, log_factor: float) -> Tensor:
        """The mixture with every standard deviation smaller by exp(-log_factor)."""
        logits, each = self._split(theta)
        narrow = torch.cat([each[..., : self.dims], each[..., self.dims :] - log_factor], -1)
        return torch.cat([logits, narrow.flatten(-2)], -1)

    def log_prob(self, theta: Tensor, s: Tensor) -> Tensor:
        """Log density `[..., N]` at `s[N, d]`."""
        logits, each = self._split(theta)
        return (logits.log_softmax(-1).unsqueeze(-1) + super().log_prob(each, s)).logsumexp(-2)

    def distribution(self, theta: Tensor) -> Distribution:
        """The mixture as a torch distribution with batch `[...]`: over numbers where d = 1, else over vectors."""
        logits, each = self._split(theta)
        return MixtureSameFamily(Categorical(logits=logits), super().distribution(each))

    def _split(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        logits, each = theta.split((self.components, theta.shape[-1] - self.components), -1)
        return logits, each.unflatten(-1, (self.components, 2 * self.dims))


FAMILIES = {"normal": FullNormal, "mean_field": MeanField, "mixture": Mixture}
