"""Checkpoints give back what was saved, are whole at every moment, and say which file is damaged."""

from __future__ import annotations

import errno
import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from mindworks.errors import InputError
from mindworks.lab import checkpoint


def _same(left: object, right: object) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        assert isinstance(right, torch.Tensor)
        same = left.dtype == right.dtype and left.shape == right.shape
        if not left.dtype.is_floating_point:
            return same and torch.equal(left, right)
        return same and torch.equal(left.double().nan_to_num(7.0), right.double().nan_to_num(7.0))
    if isinstance(left, (np.ndarray, np.generic)):
        assert isinstance(right, (np.ndarray, np.generic))
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, dict):
        assert isinstance(right, dict)
        return list(left) == list(right) and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        assert isinstance(right, (list, tuple))
        return len(left) == len(right) and all(map(_same, left, right))
    return left == right or (left != left and right != right)


STATES = {
    "scalars": {
        "int": 3,
        "float": 0.1 + 0.2,
        "text": "ü→",
        "true": True,
        "none": None,
        "big": 2**521 - 1,
        "minus": -0.0,
    },
    "not finite": [math.nan, math.inf, -math.inf],
    "empty": [{}, [], (), ""],
    "keys": {1: "a", (2, "b"): "c", "$": 1, None: 2, False: 3},
    "tensors": [
        torch.arange(6, dtype=dtype).reshape(2, 3)
        for dtype in (torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.int8, torch.int64, torch.uint8)
    ],
    "odd tensors": [
        torch.tensor(2.5),
        torch.zeros(0, 3),
        torch.zeros(0, 3, dtype=torch.bfloat16),
        torch.tensor(1.5, dtype=torch.bfloat16),
        torch.tensor([True, False]),
        torch.arange(12.0).reshape(3, 4).T,
        torch.tensor([math.nan, 1.0]),
    ],
    "arrays": [
        np.arange(6).astype(dtype).reshape(3, 2)
        for dtype in ("?", "i1", "i4", "i8", "u1", "u2", "u8", "f2", "f4", "f8", "c8", "c16", ">f8", "U3")
    ],
    "odd arrays": [
        np.array(2.5),
        np.zeros((0, 2), np.uint64),
        np.arange(12).reshape(3, 4)[:, ::2],
        np.array(2**64 - 1),
    ],
    "numpy scalars": [np.float64(0.1), np.float32(0.1), np.int64(7), np.uint64(2**64 - 1), np.bool_(True)],
    "generators": [
        random.Random(1).getstate(),
        np.random.default_rng(1).bit_generator.state,
        torch.Generator().manual_seed(1).get_state(),
    ],
    "nested": {"layers": [{"weight": torch.ones(2), "steps": (1, [2.0, {"x": np.ones(1)}])}]},
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_state_comes_back_exactly(state: object, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state)
    assert _same(checkpoint.load(tmp_path), state)


def test_optimizer_and_generator_continue(tmp_path: Path) -> None:
    weight = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    weight.square().sum().backward()
    optimizer.step()
    generator = torch.Generator().manual_seed(3)
    checkpoint.save(tmp_path, {"weight": weight, "optimizer": optimizer.state_dict(), "random": generator.get_state()})
    stored = checkpoint.load(tmp_path)
    assert _same(stored["optimizer"], optimizer.state_dict())
    assert not stored["weight"].requires_grad
    expected = torch.rand(4, generator=generator)
    again = torch.Generator()
    again.set_state(stored["random"])
    assert torch.equal(torch.rand(4, generator=again), expected)


def test_restored_arrays_can_be_written_to(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, [np.zeros(2), torch.zeros(2)])
    array, tensor = checkpoint.load(tmp_path)
    array += 1
    tensor += 1
    assert array.tolist() == tensor.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), b"bytes", 1j])
def test_what_cannot_be_held_is_named(value: object, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a"):
        checkpoint.save(tmp_path, {"a": [0, value]})
    assert checkpoint.load(tmp_path) is None


def test_nothing_saved_is_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / "nowhere") is None
    assert checkpoint.about(tmp_path) is None


def test_only_one_generation_stays(tmp_path: Path) -> None:
    for step in range(4):
        checkpoint.save(tmp_path, {"w": np.full(3, step)}, {"step": step})
    assert len(list(tmp_path.iterdir())) == 2
    assert checkpoint.load(tmp_path)["w"].tolist() == [3, 3, 3]
    assert checkpoint.about(tmp_path) == {"step": 3}


@pytest.mark.parametrize("crash_at", range(1, 7))
@pytest.mark.parametrize("name", ["fsync", "replace", "open"])
def test_a_crash_or_full_disk_at_any_call_keeps_the_state_before(
    name: str, crash_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, {"w": np.zeros(3), "step": 0})
    real, calls = getattr(os, name), 0

    def full(*words: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == crash_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*words, **options)

    monkeypatch.setattr(os, name, full)
    try:
        checkpoint.save(tmp_path, {"w": np.ones(3), "step": 1})
    except OSError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017  (late calls do not happen at all)
    monkeypatch.undo()
    stored = checkpoint.load(tmp_path)
    assert stored["w"].tolist() == [stored["step"]] * 3
    checkpoint.save(tmp_path, {"w": np.full(3, 2.0), "step": 2})
    assert checkpoint.load(tmp_path)["step"] == 2
    assert len(list(tmp_path.iterdir())) == 2


def _files(folder: Path) -> list[Path]:
    checkpoint.save(folder, {"w": np.arange(30.0), "step": 12345})
    return sorted(folder.iterdir())


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("damage", ["half", "empty", "flip", "gone"])
def test_damage_is_one_line_that_names_the_file(which: int, damage: str, tmp_path: Path) -> None:
    path = _files(tmp_path)[which]
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
        if path.name == "_state.json":  # without its index there is no checkpoint at all
            assert checkpoint.load(tmp_path) is None
            return
    else:
        at = content.index(b"12345") if path.suffix == ".json" else len(content) // 2
        flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        path.write_bytes({"half": content[: len(content) // 2], "empty": b"", "flip": flipped}[damage])
    others = [other for other in tmp_path.iterdir() if other != path]
    with pytest.raises(InputError, match=path.name) as caught:
        checkpoint.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert all(other.exists() for other in others)
