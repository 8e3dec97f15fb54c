"""Greedy and plain sampling without a sort: two passes, the vocabulary cut into chunks.

The first pass has a program per row and chunk, so that one row already fills many multiprocessors;
the second has one per row. Chunks are the same for every batch, and so are the sums: a row's token
does not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import triton
import triton.language as tl

CHUNK: Final = 4096  # ids in one program
_NO_ID: Final = tl.constexpr(2**31 - 1)  # larger than every id


def argmax(logits: torch.Tensor) -> torch.Tensor:
    """See `lmi.dist.kernels.base.Kernels.argmax`."""
    rows, vocabulary = logits.shape
    chunks = triton.cdiv(vocabulary, CHUNK)
    best = torch.empty((rows, chunks), dtype=torch.float32, device=logits.device)
    ids = torch.empty((rows, chunks), dtype=torch.int64, device=logits.device)
    out = torch.empty(rows, dtype=torch.int64, device=logits.device)
    _largest_of_chunk[(rows, chunks)](
        logits, best, ids, logits.stride(0), VOCABULARY=vocabulary, CHUNK=CHUNK
    )
    _largest_of_row[(rows,)](best, ids, out, CHUNKS=chunks, TILE=triton.next_power_of_2(chunks))
    return out


def draw(
    logits: torch.Tensor, temperature: Sequence[float], uniform: Sequence[float]
) -> torch.Tensor:
    """See `lmi.dist.kernels.base.Kernels.draw`; -1 where `argmax` says so."""
    rows, vocabulary = logits.shape
    chunks = triton.cdiv(vocabulary, CHUNK)
    device = logits.device
    heat = torch.tensor(temperature, dtype=torch.float32, device=device)
    chance = torch.tensor(uniform, dtype=torch.float64, device=device)
    best = torch.empty((rows, chunks), dtype=torch.float32, device=device)
    mass = torch.empty((rows, chunks), dtype=torch.float64, device=device)
    out = torch.empty(rows, dtype=torch.int64, device=device)
    _mass_of_chunk[(rows, chunks)](
        logits, heat, best, mass, logits.stride(0), VOCABULARY=vocabulary, CHUNK=CHUNK
    )
    _invert[(rows,)](
        logits, heat, chance, best, mass, out, logits.stride(0),
        VOCABULARY=vocabulary, CHUNK=CHUNK, CHUNKS=chunks, TILE=triton.next_power_of_2(chunks),
    )  # fmt: skip
    return out


@triton.jit
def _load_chunk(
    logits: tl.tensor,
    stride: tl.tensor,
    row: tl.tensor,
    chunk: tl.tensor,
    VOCABULARY: tl.constexpr,
    CHUNK: tl.constexpr,
) -> tl.tensor:
    """(ids, logits in float32) of a chunk; -inf beyond the vocabulary."""
    ids = chunk * CHUNK + tl.arange(0, CHUNK)
    found = tl.load(
        logits + row.to(tl.int64) * stride + ids, mask=ids < VOCABULARY, other=float("-inf")
    )
    return ids, found.to(tl.float32)


@triton.jit
def _maximum(numbers: tl.tensor) -> tl.tensor:
    """The largest, or NaN if one of them is NaN (a maximum may drop NaN, by the hardware)."""
    broken = tl.max((numbers != numbers).to(tl.int32), axis=0) > 0
    best = tl.max(tl.where(numbers != numbers, float("-inf"), numbers), axis=0)
    return tl.where(broken, float("nan"), best)


@triton.jit
def _is_finite(number: tl.tensor) -> tl.tensor:
    return (number == number) & (tl.abs(number) != float("inf"))


@triton.jit(do_not_specialize=["stride"])
def _largest_of_chunk(
    logits: tl.tensor, best: tl.tensor, ids_out: tl.tensor, stride: tl.tensor,
    VOCABULARY: tl.constexpr, CHUNK: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0)
    chunk = tl.program_id(1)
    ids, numbers = _load_chunk(logits, stride, row, chunk, VOCABULARY, CHUNK)
    largest = _maximum(numbers)
    place = row * tl.num_programs(1) + chunk
    tl.store(best + place, largest)
    tl.store(ids_out + place, tl.min(tl.where(numbers == largest, ids, _NO_ID), axis=0))


@triton.jit
def _largest_of_row(
    best: tl.tensor, ids: tl.tensor, out: tl.tensor, CHUNKS: tl.constexpr, TILE: tl.constexpr
) -> None:
    row = tl.program_id(0)
    chunk = tl.arange(0, TILE)
    there = chunk < CHUNKS
    numbers = tl.load(best + row * CHUNKS + chunk, mask=there, other=float("-inf"))
    first = tl.load(ids + row * CHUNKS + chunk, mask=there, other=0)
    largest = _maximum(numbers)
    token = tl.min(tl.where(numbers == largest, first, _NO_ID), axis=0)
    tl.store(out + row, tl.where(_is_finite(largest), token, -1).to(tl.int64))


@triton.jit
def _weights(numbers: tl.tensor, largest: tl.tensor, heat: tl.tensor) -> tl.tensor:
    """exp((numbers - largest) / heat) in float64; the difference first: a small temperature can't
    overflow then."""
    return tl.exp((numbers - largest) / heat).to(tl.float64)


@triton.jit(do_not_specialize=["stride"])
def _mass_of_chunk(
    logits: tl.tensor, heat: tl.tensor, best: tl.tensor, mass: tl.tensor, stride: tl.tensor,
    VOCABULARY: tl.constexpr, CHUNK: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0)
    chunk = tl.program_id(1)
    _, numbers = _load_chunk(logits, stride, row, chunk, VOCABULARY, CHUNK)
    largest = _maximum(numbers)
    anchor = tl.where(_is_finite(largest), largest, 0.0)  # all hidden: a mass of 0, not NaN
    place = row * tl.num_programs(1) + chunk
    tl.store(best + place, largest)
    tl.store(mass + place, tl.sum(_weights(numbers, anchor, tl.load(heat + row)), axis=0))


@triton.jit(do_not_specialize=["stride"])
def _invert(
    logits: tl.tensor, heat: tl.tensor, uniform: tl.tensor, best: tl.tensor, mass: tl.tensor,
    out: tl.tensor, stride: tl.tensor,
    VOCABULARY: tl.constexpr, CHUNK: tl.constexpr, CHUNKS: tl.constexpr, TILE: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0)
    number = tl.arange(0, TILE)
    there = number < CHUNKS
    chunk_best = tl.load(best + row * CHUNKS + number, mask=there, other=float("-inf"))
    chunk_mass = tl.load(mass + row * CHUNKS + number, mask=there, other=0.0)
    largest = _maximum(chunk_best)
    fine = _is_finite(largest)
    largest = tl.where(fine, largest, 0.0)
    warmth = tl.load(heat + row)
    shares = _weights(tl.where(fine, chunk_best, 0.0), largest, warmth)
    masses = tl.where(fine, chunk_mass, 0.0) * shares
    sums = tl.cumsum(masses, axis=0)
    target = tl.load(uniform + row) * tl.max(sums, axis=0)
    # The first chunk whose end passes the target; rounding may leave none: then the last with mass.
    last_chunk = tl.max(tl.where(masses > 0.0, number, 0), axis=0)
    chunk = tl.minimum(tl.sum((there & (sums <= target)).to(tl.int32), axis=0), last_chunk)
    before = tl.max(tl.where(number < chunk, sums, 0.0), axis=0)
    ids, numbers = _load_chunk(logits, stride, row, chunk, VOCABULARY, CHUNK)
    weights = _weights(numbers, largest, warmth)
    # Strictly passes: a token without mass can't be hit, not even by a target of exactly 0.
    passed = tl.cumsum(weights, axis=0) + before > target
    first = tl.min(tl.where(passed & (weights > 0.0), ids, _NO_ID), axis=0)
    last = tl.max(tl.where(weights > 0.0, ids, 0), axis=0)
    tl.store(out + row, tl.where(fine, tl.minimum(first, last), -1).to(tl.int64))
