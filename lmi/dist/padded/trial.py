"""How a model may be batched is tried, not believed: a few short passes when it is loaded.

Each row's logits are compared with those of the row alone. So a state-space model that ignores the
padding mask, or an expert layer with a capacity per batch, gets the batches that leave its answers
alone, whatever its documentation says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from lmi.dist.padded.forming import Cost, Together
from lmi.dist.padded.passes import Passes

Prepare = Callable[[Sequence[Sequence[int]]], Passes]

_SHORT: Final = 3  # tokens of the trial's prompts: the short one gets more padding than it has text
_LONG: Final = 12
_STEPS: Final = 3  # tokens decoded
# What a model raises on a batch that it can't compute.
_REFUSALS: Final = (IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)
# The largest difference, relative to the logits' spread, that is rounding and not a change.
_TOLERANCE: Final = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True, slots=True)
class Trial:
    """What was found. drops: whether rows that ended can leave a batch under way. start: the ids
    that the decoder begins with before its own answer, without a prompt's (encoder-decoder)."""

    together: Together
    drops: bool
    cost: Cost
    start: tuple[int, ...]


def try_out(prepare: Prepare, *, vocab_size: int, dtype: torch.dtype, takes_mask: bool) -> Trial:
    """Run the trial. Raises whatever a model raises that can't generate at all."""
    long = [(7 * i + 3) % vocab_size for i in range(_LONG)]
    other = [(11 * i + 5) % vocab_size for i in range(_LONG)]
    short = other[:_SHORT]
    alone: dict[tuple[int, ...], list[torch.Tensor]] = {}
    sizes: dict[int, list[int]] = {}
    start: list[int] = []
    for prompt in (other, short, long):
        passes = prepare([prompt])
        start = passes.start
        alone[tuple(prompt)], sizes[len(prompt)] = _run_alone(passes)
        if not any(torch.isfinite(row).any() for row in alone[tuple(prompt)]):
            raise ArithmeticError(f"no finite logits in {dtype}")
    tolerance = _TOLERANCE[dtype]

    def side_by_side(prompts: list[list[int]]) -> tuple[bool, bool]:
        expected = [alone[tuple(prompt)] for prompt in prompts]
        try:
            passes = prepare(prompts)
            same = _as_alone(passes, range(_STEPS - 1), expected, tolerance)
        except _REFUSALS:
            return False, False
        return same, same and _drops(passes, expected, tolerance)

    together = Together.PADDED
    same, drops = side_by_side([long, short]) if takes_mask else (False, False)
    if not same:
        together = Together.EQUAL
        same, drops = side_by_side([long, other])
    if not same:
        together = Together.ALONE
    return Trial(together, drops, _cost(sizes), tuple(start))


def _run_alone(passes: Passes) -> tuple[list[torch.Tensor], list[int]]:
    """The logits, and the state's bytes, of each step of one row, which decodes fixed tokens."""
    logits, sizes = [], []
    for step in range(_STEPS):
        logits.append(passes.forward()[0])
        sizes.append(passes.state_bytes)
        passes.push([step])
    return logits, sizes


def _as_alone(
    passes: Passes, steps: range, expected: list[list[torch.Tensor]], tolerance: float
) -> bool:
    """Whether each row of these steps is as it was alone."""
    same = True
    for step in steps:
        for row, reference in zip(passes.forward(), expected, strict=True):
            same = same and _close(row, reference[step], tolerance)
        passes.push([step] * passes.rows)
    return same


def _drops(passes: Passes, expected: list[list[torch.Tensor]], tolerance: float) -> bool:
    """Whether the last row is as it was alone after the others left."""
    if not passes.can_drop:
        return False
    try:
        passes.keep([passes.rows - 1])
        return _as_alone(passes, range(_STEPS - 1, _STEPS), expected[-1:], tolerance)
    except _REFUSALS:
        return False


def _close(row: torch.Tensor, reference: torch.Tensor, tolerance: float) -> bool:
    # What the checkpoint forbids is -inf in both.
    known = torch.isfinite(reference)
    if not known.any() or not torch.equal(known, torch.isfinite(row)):
        return False
    row, reference = row[known], reference[known]
    spread = (reference.amax() - reference.amin()).clamp_min(1e-6)
    return bool((row - reference).abs().amax() <= tolerance * spread)


def _cost(sizes: dict[int, list[int]]) -> Cost:
    """From the state's bytes of one row, by prompt length and step."""
    short, long = sizes[_SHORT], sizes[_LONG]
    read = max(0, long[0] - short[0]) // (_LONG - _SHORT)
    generated = max(0, long[-1] - long[0]) // (_STEPS - 1)
    return Cost(row=max(0, long[0] - _LONG * read), read=read, generated=generated)
