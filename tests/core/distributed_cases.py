"""What test_distributed.py asks of two processes: run by torchrun, each writes its answers into a folder."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mindworks.core.distributed import Workers, joined
from mindworks.errors import InputError

STEPS = 4


class Tagger(nn.Module):
    """A recurrent network that scores every item of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(2, 3, batch_first=True)
        self.out = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0])


def network(kind: str, seed: int) -> nn.Module:
    """A network of float64 weights."""
    torch.manual_seed(seed)
    mlp = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    return (mlp if kind == "mlp" else Tagger()).double()


def batches(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches `x[count, 5, 2]` and masks `[count, 5, 1]` of sequences of several lengths, the same in each process."""
    random = torch.Generator().manual_seed(7)
    for _ in range(STEPS):
        x = torch.randn(count, 5, 2, generator=random, dtype=torch.float64)
        lengths = torch.randint(1, 6, (count, 1, 1), generator=random)
        yield x, torch.arange(5)[:, None] < lengths


def loss_sum(model: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """The sum of the squared errors of the items that the mask keeps."""
    return ((model(x) - x.prod(-1, keepdim=True)).square() * mask).sum()


def train(workers: Workers, kind: str, count: int, parts: int) -> dict[str, Any]:
    """Gradients of the first step, losses of every step and the last weights of a training with Adam."""
    model = workers.wrap(network(kind, seed=workers.rank))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    found: dict[str, Any] = {"losses": []}
    for x, mask in batches(count):
        x, mask = x[workers.rows(count)], mask[workers.rows(count)]
        optimizer.zero_grad()
        items, seen = mask.sum(), torch.zeros((), dtype=torch.float64)
        if parts == 1:
            loss = loss_sum(model, x, mask)
            workers.mean(loss, items).backward()
            seen += loss.detach()
        else:  # the last process takes one part fewer
            pieces = zip(*(each.tensor_split(parts - workers.rank) for each in (x, mask)), strict=True)
            weight = workers.weight(items)
            for piece in workers.accumulate(model, pieces):
                loss = loss_sum(model, *piece)
                (weight * loss).backward()
                seen += loss.detach()
        found.setdefault("gradients", [each.grad.flatten().tolist() for each in model.parameters()])
        optimizer.step()
        found["losses"].append(float(workers.total(seen) / workers.total(items)))
    plain = workers.plain(model)
    return found | {"weights": {name: each.flatten().tolist() for name, each in plain.state_dict().items()}}


class Buffered(nn.Module):
    """A weight and a buffer that hold the number of the process."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), float(rank)))
        self.register_buffer("seen", torch.full((2,), float(rank)))


def small(workers: Workers) -> dict[str, Any]:
    """The simple answers."""
    found: dict[str, Any] = {"rank": workers.rank, "size": workers.size, "first": workers.first}
    found["rows"] = [[workers.rows(n).start, workers.rows(n).stop] for n in (2, 3, 7, 8)]
    own = torch.tensor([1, 10]) + workers.rank
    total = workers.total(own)
    found["total"] = [total.tolist(), str(total.dtype), own.tolist(), float(workers.total(0.5))]
    wrapped = workers.wrap(Buffered(workers.rank))
    found["state"] = {name: each.tolist() for name, each in workers.plain(wrapped).state_dict().items()}
    found["weight"] = workers.weight(workers.rank)  # no item in the first process
    for name, wrong in (("rows", lambda: workers.rows(1)), ("weight", lambda: workers.weight(0))):
        try:
            wrong()
        except InputError as error:
            found[f"wrong {name}"] = str(error)
    return found


def silent(workers: Workers) -> str:
    """What a process hears that waits for another which does not come."""
    try:
        with joined(device="cpu", timeout=0.5) as hurried:
            if workers.first:
                hurried.total(1.0)
    except ConnectionError as error:
        return str(error)
    return ""


def bereft(workers: Workers) -> str:
    """What the first process hears when the other is killed."""
    if not workers.first:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends it as well; here it must notice by itself
    model = workers.wrap(nn.Linear(2, 1))
    return f"not reached: {model(torch.ones(2))}"


def main(folder: Path) -> None:
    """Answer everything, then lose a process."""
    answers: dict[str, Any] = {}
    with joined(device="cpu") as workers:
        answers["small"] = small(workers)
    with joined(device="cpu") as workers:
        for kind, count, parts in CASES:
            answers[f"{kind} {count} {parts}"] = train(workers, kind, count, parts)
        with joined(device="cpu") as inner:
            answers["inner"] = [float(inner.total(inner.rank + 1)), float(workers.total(inner.size))]
        answers["silent"] = silent(workers)
        (folder / f"{workers.rank}.json").write_text(json.dumps(answers))
        float(workers.total(0.0))
        try:
            with joined(device="cpu") as inner:
                bereft(inner)
        except ConnectionError as error:
            (folder / "bereft").write_text(str(error))
            os._exit(3)


CASES = [("mlp", 8, 1), ("mlp", 7, 1), ("rnn", 6, 1), ("rnn", 5, 1), ("mlp", 7, 3), ("rnn", 7, 2)]

if __name__ == "__main__":
    main(Path(sys.argv[1]))
