"""Whether a means of exchange gives the sums that it should, on this machine, before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch

from lmi.core import EngineDead
from lmi.dist.collectives.base import Collective

# One element, an odd number of them, and more than go in one piece.
_SIZES: Final = (1, 1023, 600_001)
_WIDTH: Final = 96
_EPSILON: Final = 1e-6


def self_test(collective: Collective) -> str | None:
    """What is wrong on this rank, or None. All ranks call it together; it takes milliseconds."""
    try:
        # To the end on every rank, whatever is wrong: the others take part in all of it.
        troubles = [*_sums(collective), *_norm(collective), *_bytes(collective)]
    except EngineDead as error:
        return f"the self-test did not end: {error}"
    return troubles[0] if troubles else None


def ordered_sum(parts: torch.Tensor) -> torch.Tensor:
    """parts[0] + parts[1] + .. in float32, in that order, as every all-reduce of ours takes it."""
    total = parts[0].float()
    for part in parts[1:]:
        total = total + part
    return total.to(parts.dtype)


def _parts(collective: Collective, size: int, dtype: torch.dtype) -> torch.Tensor:
    """The same random numbers on every rank: (ranks, size)."""
    generator = torch.Generator().manual_seed(size)
    return torch.randn(collective.size, size, generator=generator).to(dtype)


def _sums(collective: Collective) -> Iterator[str]:
    for dtype in (torch.float32, torch.bfloat16):
        for size in _SIZES:
            parts = _parts(collective, size, dtype)
            found = collective.all_reduce(parts[collective.rank].clone())
            if not torch.equal(found, ordered_sum(parts)):
                yield f"the self-test's sum of {size} numbers ({dtype}) is wrong"


def _norm(collective: Collective) -> Iterator[str]:
    parts = _parts(collective, 3 * _WIDTH, torch.float32).view(-1, 3, _WIDTH)
    residual = torch.ones(3, _WIDTH)
    weight = torch.linspace(0.5, 2.0, _WIDTH)
    expected = residual + ordered_sum(parts)
    normed = collective.add_rms_norm(residual, parts[collective.rank].clone(), weight, _EPSILON)
    scale = torch.rsqrt(expected.square().mean(dim=-1, keepdim=True) + _EPSILON)
    if not (torch.equal(residual, expected) and torch.allclose(normed, expected * scale * weight)):
        yield "the self-test's normed sum is wrong"


def _bytes(collective: Collective) -> Iterator[str]:
    said = bytes(range(256)) * 300
    heard = collective.broadcast(said if collective.rank == 0 else None)
    gathered = collective.all_gather(torch.full((2, 3), float(collective.rank)))
    ranks = torch.arange(collective.size).repeat_interleave(3).expand(2, -1)
    if heard != said or not torch.equal(gathered, ranks.float()):
        yield "the self-test's message or gathered columns are wrong"
