"""The compiled kernels: vectors on this machine, layouts that go back and forth, and what happens without a flag."""

from __future__ import annotations

import platform
import re

import pytest
import torch

from mindworks.planning import _fused, _jit, _kernels
from mindworks.planning.value_iteration import value_iteration

numba = pytest.importorskip("numba")


def has_avx2() -> bool:
    from llvmlite.binding import get_host_cpu_features

    return platform.machine() in ("x86_64", "AMD64") and bool(get_host_cpu_features().get("avx2"))


@pytest.mark.skipif(not has_avx2(), reason="needs AVX2")
def test_products_are_taken_in_vectors() -> None:
    transition = torch.rand(1, 1, 4, 9, 3, 8, requires_grad=True)
    value_iteration(transition, torch.rand(1, 1, 3, 8), 2, backend="fused").sum().backward()
    counts = {}
    for kernel in (_kernels.forward_kernel(1, 4, 3, False, False), _kernels.backward_kernel(1, 4, 3, 136)):
        fresh = numba.njit(**_jit.options())(kernel.py_func)  # type: ignore[attr-defined]
        fresh.compile(kernel.signatures[0])  # type: ignore[attr-defined]
        assembly = next(iter(fresh.inspect_asm().values()))
        counts[kernel.__name__] = len(re.findall(r"vfmadd\w+ps\b.*[yz]mm", assembly))
    # 4 actions of 9 taps less the first product of each; the way back has 9 taps of 4 actions and of 8 layers
    assert counts["forward_c1_a4_f3"] >= 4 * 8
    assert counts["backward_c1_a4_f3_w136"] >= 9 * 3 + 9 * 8


def test_without_the_private_flag_kernels_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import compiler

    assert "pipeline_class" in _jit.options()
    with monkeypatch.context() as without:
        without.setattr(compiler, "Flags", object)
        without.setattr(_jit, "_distinct_arrays", _jit._distinct_arrays.__wrapped__)
        options = _jit.options()
    assert "pipeline_class" not in options
    plain = numba.njit(**options)(_kernels._pack)
    monkeypatch.setattr(_kernels, "pack_kernel", lambda: plain)
    planes = torch.rand(2, 3, 4, 11)
    assert torch.equal(_fused._unpack(_fused._pack(planes), planes.shape), planes)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 16, 21])
def test_packing_goes_back_and_forth(width: int) -> None:
    planes = torch.rand(2, 5, 3, width)
    packed = _fused._pack(planes)
    blocks = -(-width // 8)
    lanes = torch.from_numpy(packed).reshape(2, 3, blocks, 5, 8).permute(0, 3, 1, 2, 4).reshape(2, 5, 3, blocks * 8)
    assert torch.equal(lanes[..., :width], planes)
    assert lanes[..., width:].abs().sum() == 0
    assert torch.equal(_fused._unpack(packed, planes.shape), planes)


def test_rows_of_the_scratch_are_long_enough() -> None:
    for row in (3, 136, 137, 1000):
        assert _kernels.span_of_row(row) >= row
    assert _kernels.span_of_row(20) == _kernels.span_of_row(130)
