"""Each Triton kernel compiles to machine code for the GPUs of the field, with no GPU at hand.

The interpreter forgives types that a compiler refuses, and knows no limits of a processor. Launches
are caught after the compiler: nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime import JITFunction

from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.kernels.triton import TritonKernels
from lmi.dist.kernels.triton.decode import decode_attention
from tests.support.paged import heads_of, make_cache, make_case

CPU = torch.device("cpu")
# Bytes of shared memory that a program may have, by compute capability: 8.6 (A10; 8.9, L4, has as
# much) and 9.0 (H100).
SHARED = {86: 99 << 10, 90: 227 << 10}


class CompilesOnly:
    """Stands in for Triton's CUDA driver: one device of the given kind, and nothing to launch."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


Compiled = list[CompiledKernel]


@pytest.fixture
def compiling(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[int], Compiled]]:
    """Call with a compute capability; what is launched from then on ends up in the list."""
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    found: Compiled = []

    def launch(function: JITFunction, grid: object, *args: object, **kwargs: object) -> None:
        found.append(function.run(*args, grid=grid, warmup=True, **kwargs))

    monkeypatch.setattr(
        JITFunction, "__getitem__", lambda function, grid: partial(launch, function, grid)
    )

    def start(capability: int) -> Compiled:
        triton.runtime.driver.set_active(CompilesOnly(capability))
        return found

    yield start
    triton.runtime.driver._active = None


def launch_all(dtype: torch.dtype, size: int) -> None:
    """Every kernel once or more, as a model of a usual shape does."""
    kernels = TritonKernels(dtype, CPU)
    rows = torch.zeros(5, 256, dtype=dtype)
    weight = torch.zeros(256, dtype=dtype)
    kernels.rms_norm(rows, weight, 1e-5)
    kernels.add_rms_norm(rows, rows.clone(), weight, 1e-5)
    kernels.silu_mul(rows)
    logits = torch.zeros(5, 32_000, dtype=dtype)
    kernels.argmax(logits)
    kernels.draw(logits, [1.0] * 5, [0.5] * 5)
    for heads in (heads_of(8, 1, size, 32), heads_of(14, 2, size)):
        case = make_case(heads, [(40, 40), (1, 1), (1, 90)], dtype=dtype)
        kernels.attention(case.query, case.cache, case.segments, heads)
        spans, tables = case.segments.spans[1:], case.segments.tables[1:]
        decode_attention(
            case.query,
            case.query,
            case.cache,
            spans,
            tables,
            heads,
            longest=1,
            max_tokens=90,
            splits=2,
        )
    for norm in (None, torch.zeros(size, dtype=dtype)):
        heads = heads_of(14, 2, size)
        qkv = torch.zeros(5, 18 * size, dtype=dtype)
        slots = torch.arange(5)
        cache = make_cache(heads, 2, 16, dtype)
        kernels.rotate_and_write(
            qkv, torch.zeros(9, size), slots, slots, cache, heads, norm, norm, 1e-6
        )
    values = torch.zeros(256, 256, dtype=torch.uint8)
    scales, order = torch.zeros(256, 2), torch.zeros(256, dtype=torch.int64)
    for low in (
        LowBitWeight(4, values, scales, scales, order),
        LowBitWeight(8, values.to(torch.int8), scales[:, :1], activation_bits=8),
    ):
        layer = kernels.low_bit_linear(low, weight)
        layer(rows)
        layer(rows.repeat(20, 1))


@pytest.mark.parametrize(
    ("capability", "dtype", "size"),
    [
        (86, torch.float32, 128),
        (86, torch.bfloat16, 256),
        (90, torch.float16, 80),
    ],
    ids=str,
)
def test_every_kernel_compiles_within_the_gpus_shared_memory(
    compiling: Callable[[int], Compiled], capability: int, dtype: torch.dtype, size: int
) -> None:
    compiled = compiling(capability)
    launch_all(dtype, size)
    names = {kernel.metadata.name for kernel in compiled}
    assert len(names) == 12, names
    for kernel in compiled:
        assert kernel.asm["cubin"]
        assert kernel.metadata.shared <= SHARED[capability], kernel.metadata
