"""One model trained by several processes: each takes its rows of every batch, and all of them make the same step.

torchrun starts the processes (https://docs.pytorch.org/docs/stable/elastic/run.html). Without it the same code runs in
one process, and nothing is initialised. The mean of gradients over processes is torch's DistributedDataParallel.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mindworks.errors import InputError, require

Part = TypeVar("Part")

# A group that comes after another needs keys of its own in the launcher's store: with those of the group before it,
# both processes wait for addresses that are gone (torch 2.13, 2026-11-28).
_GROUPS = itertools.count()


@dataclass(frozen=True)
class Workers:
    """The processes that train together, seen from one of them.

    `rank` in [0, `size`) is this process; its tensors live on `device`. `group` is torch's process group, or None for
    a process alone. Every process must make the same calls of `wrap`, `weight`, `mean` and `total`, in the same order.
    """

    rank: int
    size: int
    device: torch.device
    group: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and saves."""
        return self.rank == 0

    def wrap(self, module: nn.Module, **options: Any) -> nn.Module:
        """`module` on `device`, whose gradients become their mean over the processes; a process alone keeps it as is.

        Parameters and buffers become those of rank 0. `options` are those of `DistributedDataParallel`; a model that
        leaves parameters without a gradient in some steps needs `find_unused_parameters=True`.
        """
        module = module.to(self.device)
        if self.group is None:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices, process_group=self.group, **options)

    def plain(self, module: nn.Module) -> nn.Module:
        """What `wrap` was given: its state dict has the same keys for every number of processes."""
        return module.module if isinstance(module, DistributedDataParallel) else module

    def rows(self, count: int) -> slice:
        """This process's part of a batch of `count` rows; the parts differ by at most one row, in the order of ranks.

        Raises InputError where the batch has fewer rows than there are processes.
        """
        require(count >= self.size, f"count must be at least {self.size}, one row per process, got {count}")
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def total(self, value: Tensor | float) -> Tensor:
        """The sum of `value` over the processes, a new tensor without gradient; a number becomes a float64 tensor."""
        summed = torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else torch.float64).detach().clone()
        if self.group is not None:
            dist.all_reduce(summed, group=self.group)
        return summed

    def weight(self, count: float | Tensor) -> float:
        """The factor of a sum over this process's `count` items in the loss of one step: `size / total(count)`.

        The mean over P processes of the gradients of `weight_p * sum_p` is the gradient of the mean over all items,
        however unevenly the items are shared. With accumulation, `count` is that of all the parts of the step.
        Raises InputError where no process has an item.
        """
        items = float(self.total(count))
        require(items > 0, f"count must be positive in at least one process, got a total of {items:g}")
        return self.size / items

    def mean(self, loss_sum: Tensor, count: float | Tensor) -> Tensor:
        """The loss to back-propagate for `loss_sum`, the sum of the losses of this process's `count` items.

        For one process it is their mean. For several its value is not the mean over all items, its gradient after
        `wrap` is; `total(loss_sum) / total(count)` is the value to report.
        """
        return loss_sum * self.weight(count)

    def accumulate(self, module: nn.Module, parts: Iterable[Part]) -> Iterator[Part]:
        """Iterate over the parts of one step; gradients are exchanged in the backward pass of the last part alone.

        Processes may have different numbers of parts, at least one each. Raises InputError where there is none.
        """
        remaining = iter(parts)
        try:
            part = next(remaining)
        except StopIteration:
            raise InputError("parts must hold at least one part, got none") from None
        wrapped = module if isinstance(module, DistributedDataParallel) else None
        for following in remaining:
            with contextlib.nullcontext() if wrapped is None else wrapped.no_sync():
                yield part
            part = following
        yield part


@contextlib.contextmanager
def joined(device: str | torch.device | None = None, timeout: float = 1800.0) -> Iterator[Workers]:
    """Join the processes that torchrun started, and leave them at the end; one process without torchrun is alone.

    `device`: default the GPU numbered LOCAL_RANK where torch sees GPUs, else the CPU. GPUs talk through NCCL, CPUs
    through Gloo. `timeout`: seconds that one process waits for the others in one exchange. A process group that exists
    already is left as it is; this one stands beside it. Raises InputError for a broken environment, and
    ConnectionError when another process has ended or does not answer.
    """
    require(timeout > 0, f"timeout must be positive, got {timeout}")
    rank, size = _place()
    place = _device(device, size)
    if size == 1:
        yield Workers(0, 1, place)
        return
    patience = timedelta(seconds=timeout)
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    try:
        if dist.is_initialized():
            group = dist.new_group(timeout=patience, backend=backend)
        else:
            _begin(backend, patience)
            group = dist.group.WORLD
        yield Workers(rank, size, place, group)
    except RuntimeError as error:
        if not _lost(error):
            raise
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise ConnectionError(f"another process has ended or did not answer in {timeout:g} s ({reason})") from error
    # After an error the group stays: to end it takes the other processes, and this one is about to end.
    dist.destroy_process_group(group)


def _begin(backend: str, timeout: timedelta) -> None:
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, size = next(rendezvous("env://", timeout=timeout))
    except ValueError as error:
        raise InputError(f"the environment that torchrun sets is broken: {error}") from error
    own = PrefixStore(f"mindworks-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}-{next(_GROUPS)}", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=timeout)


def _place() -> tuple[int, int]:
    """(rank, number of processes)."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    if "RANK" not in os.environ and "WORLD_SIZE" not in os.environ:
        return 0, 1
    rank, size = _number("RANK"), _number("WORLD_SIZE")
    require(0 <= rank < size, f"RANK must be in [0, WORLD_SIZE), got {rank} of {size}")
    require(size == 1 or dist.is_available(), "this build of torch has no torch.distributed: WORLD_SIZE must be 1")
    return rank, size


def _number(name: str) -> int:
    given = os.environ.get(name)
    try:
        return int(given or "")
    except ValueError:
        raise InputError(f"{name} must be an integer, as torchrun sets it, got {given!r}") from None


def _device(device: str | torch.device | None, size: int) -> torch.device:
    local = _number("LOCAL_RANK") if size > 1 and "LOCAL_RANK" in os.environ else 0
    gpus = torch.cuda.device_count()
    place = torch.device(device if device is not None else f"cuda:{local}" if gpus else "cpu")
    if place.type == "cuda":
        place = place if place.index is not None else torch.device("cuda", local)
        require(place.index < gpus, f"device must be one of {gpus} GPUs, got {place}; device='cpu' needs none")
        if size > 1:  # NCCL works on the current GPU
            torch.cuda.set_device(place)
    return place


def _lost(error: RuntimeError) -> bool:
    """Whether `error` says that the other end is gone or silent: Gloo's has no class of its own."""
    return isinstance(error, dist.DistError) or "gloo/" in str(error)
