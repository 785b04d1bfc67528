"""Replay of policies with their returns, and of transitions with the policies that made them.

S seeds, N policies told at once, P parameters of one policy, C capacity per seed, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mindworks.errors import InputError, require
from mindworks.policies.streams import Streams

Storage = Literal["float32", "float16", "seed"]
Field = tuple[tuple[int, ...], torch.dtype]


class Ring:
    """The newest C rows of each seed, as named tensors `[S, C, *shape]` that grow by doubling until they are full."""

    def __init__(self, seeds: int, capacity: int, fields: Mapping[str, Field]) -> None:
        require(capacity >= 1, f"capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self.size = np.zeros(seeds, np.int64)
        self.position = np.zeros(seeds, np.int64)
        self._masses: tuple[float, Tensor] | None = None
        self.data = {name: torch.zeros(seeds, 0, *shape, dtype=dtype) for name, (shape, dtype) in fields.items()}

    def add(self, rows: Mapping[str, Tensor], counts: np.ndarray) -> None:
        """Write the first `counts[s]` of `rows[name][s]` over the oldest rows of seed s; of more than fit, the last."""
        kept = np.minimum(counts, self.capacity)
        self._grow(int((self.size + kept).max()))
        for s, (count, keep) in enumerate(zip(counts.tolist(), kept.tolist(), strict=True)):
            slots = torch.from_numpy((self.position[s] + np.arange(count - keep, count)) % self.capacity)
            for name, data in self.data.items():
                data[s, slots] = rows[name][s, count - keep : count].to(data.dtype)
        self.position = (self.position + counts) % self.capacity
        self.size = np.minimum(self.size + kept, self.capacity)

    def clear(self) -> None:
        """Forget every row."""
        self.size[:], self.position[:] = 0, 0

    def slots(self, age: Tensor) -> Tensor:
        """Where the row of `age[S, ...]` lies: age 0 is the newest. Slot 0 stands in for a seed without rows."""
        shape = (-1, *(1,) * (age.ndim - 1))
        newest = torch.from_numpy(self.position).reshape(shape) - 1
        return (newest - age) % self.capacity * torch.from_numpy(self.size > 0).reshape(shape)

    def draw(self, streams: Streams, shape: tuple[int, ...], newest: np.ndarray, recency: float = 0.0) -> Tensor:
        """Slots `[S, *shape]`, with replacement, of the `newest[s]` rows; a seed with 0 draws nothing.

        The row of age a = 1, 2, ... has a probability in proportion to 1 / a^recency; 0 is uniform.
        """
        ages = torch.zeros(len(newest), *shape, dtype=torch.int64)
        for s in np.flatnonzero(newest):
            count, generator = int(newest[s]), streams.torch[s]
            if recency == 0:
                torch.randint(count, shape, generator=generator, out=ages[s])
            else:
                mass = self._mass(recency)[:count]
                uniform = torch.rand(shape, generator=generator, dtype=torch.float64) * mass[-1]
                ages[s] = torch.searchsorted(mass, uniform, right=True).clamp_max_(count - 1)
        return self.slots(ages)

    def _mass(self, recency: float) -> Tensor:
        """Sums of 1 / a^recency over ages 1 to a `[C]`: made once, a draw then costs one binary search."""
        if self._masses is None or self._masses[0] != recency:
            age = torch.arange(1, self.capacity + 1, dtype=torch.float64)
            self._masses = (recency, age.pow(-recency).cumsum(0))
        return self._masses[1]

    def gather(self, name: str, slots: Tensor) -> Tensor:
        """Rows `[S, ..., *shape]` of one field at `slots[S, ...]`."""
        return self.data[name][torch.arange(len(slots)).reshape(-1, *(1,) * (slots.ndim - 1)), slots]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(data.numel() * data.element_size() for data in self.data.values())

    def state(self) -> dict[str, Any]:
        """The rows held and where the next one goes."""
        used = int(self.size.max())
        return {
            "size": self.size,
            "position": self.position,
            "data": {name: data[:, :used] for name, data in self.data.items()},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.size, self.position = state["size"].copy(), state["position"].copy()
        self.data = {name: state["data"][name].clone() for name in self.data}

    def _grow(self, wanted: int) -> None:
        wanted = min(wanted, self.capacity)
        for name, data in self.data.items():
            held = data.shape[1]
            if held < wanted:
                room = min(self.capacity, max(wanted, 2 * held))
                self.data[name] = torch.cat([data, data.new_zeros(data.shape[0], room - held, *data.shape[2:])], 1)


def noise_from_seeds(noise_seeds: Tensor, size: int) -> Tensor:
    """Standard normal vectors `[..., size]`, each a function of its own seed in `noise_seeds[...]` (int64)."""
    generator = torch.Generator()
    noise = torch.empty(noise_seeds.numel(), size)
    for row, seed in zip(noise, noise_seeds.flatten().tolist(), strict=True):
        torch.randn(size, generator=generator.manual_seed(seed), out=row)
    return noise.reshape(*noise_seeds.shape, size)


class PolicyReplay:
    """Policies `theta` with one number each (their return), proposed N at a time around a base and then told.

    `storage` says how a policy is kept: `float32`; `float16` (half the memory); or `seed`: one half-precision base per
    proposal of N policies and the seed of each one's noise, from which the policy is made again when it is drawn.
    What is proposed is what is stored, bit for bit: in half precision the base, and so the policies that act, are
    rounded before they act.
    """

    def __init__(
        self,
        seeds: int,
        parameters: int,
        population: int,
        capacity: int,
        sigma: float,
        storage: Storage,
        recency: float = 0.0,
    ) -> None:
        require(storage in ("float32", "float16", "seed"), f"storage must be float32, float16 or seed, got {storage!r}")
        require(sigma >= 0, f"sigma must not be negative, got {sigma}")
        require(capacity >= population, f"capacity must hold one population of {population}, got {capacity}")
        self.population, self.sigma, self.storage, self.recency = population, sigma, storage, recency
        self.generations = capacity // population
        capacity = self.generations * population
        vector: Field = ((parameters,), torch.float32 if storage == "float32" else torch.float16)
        policy = {"noise_seed": ((), torch.int64)} if storage == "seed" else {"theta": vector}
        self.policies = Ring(seeds, capacity, {**policy, "value": ((), torch.float64), "length": ((), torch.int64)})
        self.bases = Ring(seeds, self.generations, {"base": vector}) if storage == "seed" else None

    def propose(self, base: Tensor, noise_seeds: Tensor) -> Tensor:
        """The policies `[S, N, P]` around `base[S, P]` whose noise has the seeds `noise_seeds[S, N]`."""
        if self.storage == "seed":
            base = base.half().float()
        theta = base.unsqueeze(1) + self.sigma * noise_from_seeds(noise_seeds, base.shape[-1])
        return theta.half().float() if self.storage == "float16" else theta

    def add(
        self,
        theta: Tensor,
        values: Tensor,
        lengths: Tensor,
        active: np.ndarray,
        base: Tensor | None = None,
        noise_seeds: Tensor | None = None,
    ) -> None:
        """Store `theta[S, N, P]` with `values[S, N]` and episode `lengths[S, N]` for the seeds in `active[S]`."""
        counts = np.where(active, values.shape[1], 0)
        rows = {"value": values, "length": lengths}
        if self.bases is None:
            self.policies.add({"theta": theta, **rows}, counts)
            return
        if base is None or noise_seeds is None:
            raise InputError(
                "storage='seed' keeps only policies that ask() proposed: use float32 or float16 for others"
            )
        self.bases.add({"base": base.unsqueeze(1)}, active.astype(np.int64))
        self.policies.add({"noise_seed": noise_seeds, **rows}, counts)

    @property
    def size(self) -> np.ndarray:
        """How many policies each seed holds, `[S]`."""
        return self.policies.size

    def theta(self, slots: Tensor) -> Tensor:
        """The policies `[S, B, P]` at `slots[S, B]`."""
        if self.bases is None:
            return self.policies.gather("theta", slots).float()
        base = self.bases.gather("base", slots // self.population).float()
        noise = noise_from_seeds(self.policies.gather("noise_seed", slots), base.shape[-1])
        return base + self.sigma * noise

    def draw(self, streams: Streams, shape: tuple[int, ...], active: np.ndarray | None = None) -> Tensor:
        """Slots `[S, *shape]` of stored policies, with replacement; seeds not in `active[S]` draw nothing."""
        newest = self.size if active is None else np.where(active, self.size, 0)
        return self.policies.draw(streams, shape, newest, self.recency)

    def draw_buckets(
        self, streams: Streams, shape: tuple[int, ...], buckets: int, active: np.ndarray | None = None
    ) -> Tensor:
        """Slots `[S, *shape]`: first one of `buckets` equal ranges of values, of those not empty, then a policy.

        So rare values are drawn as often as common ones. Uniform within a range, with replacement.
        """
        require(buckets >= 1, f"buckets must be at least 1, got {buckets}")
        slots = torch.zeros(len(self.size), *shape, dtype=torch.int64)
        for s in np.flatnonzero(self.size if active is None else np.where(active, self.size, 0)):
            values, generator = self.values(int(s)), streams.torch[s]
            low, high = values.min(), values.max()
            bucket = ((values - low) / (high - low).clamp_min(1e-12) * buckets).long().clamp_max(buckets - 1)
            order = bucket.argsort(stable=True)
            counts = torch.bincount(bucket, minlength=buckets)
            filled = counts.nonzero().squeeze(-1)
            chosen = filled[torch.randint(len(filled), shape, generator=generator)]
            within = (torch.rand(shape, generator=generator, dtype=torch.float64) * counts[chosen]).long()
            slots[s] = order[(counts.cumsum(0) - counts)[chosen] + within]
        return slots

    def clear(self) -> None:
        """Forget every policy."""
        self.policies.clear()
        if self.bases is not None:
            self.bases.clear()

    def values(self, s: int) -> Tensor:
        """The values of all policies stored for seed s."""
        return self.policies.data["value"][s, : int(self.size[s])]

    def lengths(self, s: int) -> Tensor:
        """The episode lengths of all policies stored for seed s."""
        return self.policies.data["length"][s, : int(self.size[s])]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.policies.nbytes + (0 if self.bases is None else self.bases.nbytes)

    def state(self) -> dict[str, Any]:
        """Everything stored."""
        return {"policies": self.policies.state(), "bases": None if self.bases is None else self.bases.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self.policies.load(state["policies"])
        if self.bases is not None:
            self.bases.load(state["bases"])
