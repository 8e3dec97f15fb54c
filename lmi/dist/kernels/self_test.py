"""Kernels prove themselves on this processor before a model is given to them.

It compares values, never times, so that the same machine always computes in the same way.
"""

from __future__ import annotations

from typing import Final

import torch

from lmi.dist.kernels.base import Heads, Kernels, Segments
from lmi.dist.kernels.plain import PlainKernels
from lmi.dist.kv import LayerCache, LayerShape

_EPSILON: Final = 1e-6
_BLOCK: Final = 8
# Relative difference that the rounding of weights or cache explains.
_TOLERANCE: Final = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}

# Rows of each sequence in the test's step, and its tokens with them: a prefill, a later chunk, a
# decode of some length, the first decode.
_SPANS: Final = ((0, 11, 11), (11, 5, 19), (16, 1, 30), (17, 1, 1))


def differences(kernels: Kernels, dtype: torch.dtype, device: torch.device) -> list[str]:
    """The operations whose results differ from plain torch's, with by how much; none is good."""
    plain = PlainKernels(kernels.activation)
    found = []
    results = zip(_run(kernels, dtype, device), _run(plain, dtype, device), strict=True)
    for (name, ours), (_, theirs) in results:
        scale = theirs.float().abs().amax().clamp_min(1e-6)
        gap = ((ours.float() - theirs.float()).abs().amax() / scale).item()
        if not gap <= _TOLERANCE[dtype]:
            found.append(f"{name} by {gap:.1e}")
    return found


def _run(
    kernels: Kernels, dtype: torch.dtype, device: torch.device
) -> list[tuple[str, torch.Tensor]]:
    """One small layer, operation by operation; the same inputs in every call."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, kind: torch.dtype = kernels.activation) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device, kind)

    heads = Heads(query=4, kv=2, size=32, rotary=32, scaling=32**-0.5, window=17)
    rows = _SPANS[-1][0] + 1
    width = (heads.query + 2 * heads.kv) * heads.size
    shape = LayerShape(heads.kv, heads.size, heads.size)
    blocks = 1 + sum(-(-total // _BLOCK) for _, _, total in _SPANS)
    cache = LayerCache(shape, blocks, _BLOCK, dtype, device)
    cache.keys.copy_(random(*cache.keys.shape, kind=dtype))
    cache.values.copy_(random(*cache.values.shape, kind=dtype))
    segments, positions, slots = _places(device)
    hidden, weight = random(rows, 64), random(64, kind=dtype)
    bias = random(width, kind=dtype)
    linear = kernels.linear(random(width, 64, kind=dtype), bias)
    norm = random(heads.size, kind=dtype)
    angles = random(64, heads.rotary // 2, kind=torch.float32)
    rope = torch.cat([angles.cos(), angles.sin()], dim=-1)

    results = [("rms_norm", kernels.rms_norm(hidden, weight, _EPSILON).clone())]
    residual = hidden.clone()
    normed = kernels.add_rms_norm(residual, random(rows, 64), weight, _EPSILON).clone()
    results += [("add_rms_norm", normed), ("the residual", residual)]
    qkv = linear(normed).clone()
    results.append(("linear", qkv))
    query = kernels.rotate_and_write(
        qkv, rope, positions, slots, cache, heads, norm, norm, _EPSILON
    ).clone()
    results += [("rotate", query), ("write", cache.keys.clone())]
    results.append(("attention", kernels.attention(query, cache, segments, heads).clone()))
    results.append(("silu_mul", kernels.silu_mul(random(rows, 2 * 48)).clone()))
    logits = random(5, 301, kind=torch.float32)
    results.append(("argmax", kernels.argmax(logits)))
    return results


def _places(device: torch.device) -> tuple[Segments, torch.Tensor, torch.Tensor]:
    tables = torch.zeros((len(_SPANS), 4), dtype=torch.int32)
    positions: list[int] = []
    slots: list[int] = []
    following = 1
    for index, (_, rows, total) in enumerate(_SPANS):
        count = -(-total // _BLOCK)
        tables[index, :count] = torch.arange(following, following + count)
        own = range(total - rows, total)
        positions += own
        slots += [(following + place // _BLOCK) * _BLOCK + place % _BLOCK for place in own]
        following += count
    segments = Segments(
        spans=torch.tensor(_SPANS, dtype=torch.int32, device=device),
        tables=tables.to(device),
        decode_start=2,
        max_tokens=30,
        longest=11,
    )
    return segments, torch.tensor(positions).to(device), torch.tensor(slots).to(device)
