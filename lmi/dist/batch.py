"""One step's packed ragged batch: from a plan to the tensors that the forward pass reads.

All tokens of a step stand in one row: prefill segments first, decode tokens last. What the
attention needs beside the tokens (write slots, block tables, masks) is made here once per step and
shared by all layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lmi.dist.blocks import TRASH_BLOCK
from lmi.dist.kernels.base import Segments
from lmi.dist.plan import Plan
from lmi.dist.sequence import Sequence

# One request after the other costs up to twice the time per token of one padded gather (measured
# on a CPU, 64 to 2048 tokens each): it pays when padding would more than double the copy.
LOOP_PADDING: Final = 2.5
# And above this many tokens with padding, to bound the workspace: at 4 heads of 64 float32 numbers
# this is 64 MiB each for K and V.
GATHER_TOKENS: Final = 65_536


@dataclass(frozen=True, slots=True)
class PrefillPart:
    """Rows [start, stop) of the batch: one sequence's tokens at positions [past, past + rows).

    slots: where the whole sequence's K and V lie, tokens 0 to past + rows; None when past is 0.
    """

    start: int
    stop: int
    past: int
    slots: torch.Tensor | None

    @property
    def total(self) -> int:
        """Tokens of the sequence up to and with this part."""
        return self.past + self.stop - self.start


@dataclass(frozen=True, slots=True)
class DecodeView:
    """What the decode tokens may see through one window size.

    blocks: (rows * width) block numbers. mask: (rows, 1, 1, width * block size), 0 or -inf.
    """

    rows: int
    blocks: torch.Tensor
    mask: torch.Tensor


class StepBatch:
    """The tensors of one step. Views and masks are made when a layer first asks for them."""

    def __init__(
        self,
        *,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        logit_rows: torch.Tensor,
        prefill: list[PrefillPart],
        segments: Segments,
        tables: NDArray[np.int64],
        lengths: NDArray[np.int64],
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.token_ids = token_ids  # (1, tokens)
        self.positions = positions  # (1, tokens)
        self.slots = slots  # (tokens,)
        self.logit_rows = logit_rows  # rows of which logits are wanted
        self.prefill = prefill
        self.segments = segments
        self.decode_start = token_ids.shape[1] - len(lengths)
        self._tables = tables  # (decode rows, blocks)
        self._lengths = lengths  # (decode rows,) tokens with the new one
        self._block_size = block_size
        self._dtype = dtype
        self._device = device
        self._views: dict[int | None, DecodeView | list[torch.Tensor]] = {}
        self._masks: dict[tuple[int, int, int | None], torch.Tensor] = {}

    @property
    def decode_rows(self) -> int:
        """Sequences that decode."""
        return len(self._lengths)

    def decode_view(self, window: int | None) -> DecodeView | list[torch.Tensor]:
        """The padded view of all decode rows, or each row's slots where a loop is cheaper."""
        view = self._views.get(window)
        if view is None:
            view = self._views[window] = self._make_view(window)
        return view

    def prefill_mask(self, part: PrefillPart, window: int | None) -> torch.Tensor:
        """(rows, past + rows), 0 where the token may look, else -inf."""
        key = (part.past, part.total, window)
        mask = self._masks.get(key)
        if mask is None:
            query = torch.arange(part.past, part.total, device=self._device)[:, None]
            keys = torch.arange(part.total, device=self._device)[None, :]
            hidden = keys > query
            if window is not None:
                hidden |= keys <= query - window
            mask = torch.zeros(hidden.shape, dtype=self._dtype, device=self._device)
            self._masks[key] = mask.masked_fill_(hidden, -torch.inf)
        return mask

    def _make_view(self, window: int | None) -> DecodeView | list[torch.Tensor]:
        size = self._block_size
        lengths = self._lengths
        # The first block that the window still touches, per row.
        first = (
            np.zeros_like(lengths) if window is None else np.maximum(lengths - window, 0) // size
        )
        width = int((-(-lengths // size) - first).max())
        padded = width * size * len(lengths)
        wanted = int((lengths - first * size).sum())
        if padded > min(GATHER_TOKENS, LOOP_PADDING * wanted):
            return self._row_slots(window)
        columns = first[:, None] + np.arange(width)
        np.minimum(columns, self._tables.shape[1] - 1, out=columns)
        blocks = np.take_along_axis(self._tables, columns, axis=1)
        positions = first[:, None] * size + np.arange(width * size)
        hidden = positions >= lengths[:, None]
        if window is not None:
            hidden |= positions < lengths[:, None] - window
        mask = torch.zeros(hidden.shape, dtype=self._dtype)
        mask.masked_fill_(torch.from_numpy(hidden), -torch.inf)
        return DecodeView(
            len(lengths),
            torch.from_numpy(blocks.reshape(-1)).to(self._device),
            mask[:, None, None, :].to(self._device),
        )

    def _row_slots(self, window: int | None) -> list[torch.Tensor]:
        rows = []
        for table, length in zip(self._tables, self._lengths.tolist(), strict=True):
            start = 0 if window is None else max(0, length - window)
            rows.append(
                torch.from_numpy(_slots(table, start, length, self._block_size)).to(self._device)
            )
        return rows


def _slots(table: NDArray[np.int64], start: int, stop: int, size: int) -> NDArray[np.int64]:
    tokens = np.arange(start, stop)
    return table[tokens // size] * size + tokens % size


class BatchBuilder:
    """Keeps the block table of the running sequences and packs each step's batch from it."""

    def __init__(
        self,
        *,
        max_batch: int,
        blocks_per_sequence: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._table = np.full((max_batch, blocks_per_sequence), TRASH_BLOCK, dtype=np.int64)
        self._known = [0] * max_batch  # leading entries of each row that are up to date
        self._size = block_size
        self._dtype = dtype
        self._device = device

    def build(self, plan: Plan) -> StepBatch:
        """Pack a plan; every plan of a scheduler must come here, in their order.

        Rows of logits: each prompt-logprob position, then those of `Plan.rows`.
        """
        for sequence in plan.admitted:
            self._known[sequence.place] = 0
            self._extend(sequence)
        for sequence in plan.grown:
            self._extend(sequence)
        decode = plan.decode
        base = sum([segment.end - segment.start for segment in plan.segments])
        packed = np.empty((3, base + len(decode)), np.int64)  # ids, positions, slots
        parts, wanted = self._pack_segments(plan, packed)
        lengths = np.array([len(s.tokens) for s in decode], np.int64)
        segments, tables = self._segments(plan, parts, lengths, base)
        if decode:
            last = lengths - 1
            packed[0, base:] = [s.tokens[-1] for s in decode]
            packed[1, base:] = last
            own = tables[np.arange(len(decode)), last // self._size]
            packed[2, base:] = own * self._size + last % self._size
        wanted.append(np.arange(base, base + len(decode)))
        # One copy to the device for all three.
        ids, positions, slots = self._tensor(packed)
        return StepBatch(
            token_ids=ids[None],
            positions=positions[None],
            slots=slots,
            logit_rows=self._tensor(np.concatenate(wanted)),
            prefill=parts,
            segments=segments,
            tables=tables,
            lengths=lengths,
            block_size=self._size,
            dtype=self._dtype,
            device=self._device,
        )

    def _pack_segments(
        self, plan: Plan, packed: NDArray[np.int64]
    ) -> tuple[list[PrefillPart], list[NDArray[np.int64]]]:
        """Fill in the segments' columns; where each lies, and the rows whose logits are wanted."""
        parts: list[PrefillPart] = []
        prompt_rows: list[NDArray[np.int64]] = []
        sampled_rows: list[NDArray[np.int64]] = []
        stop = 0
        for segment in plan.segments:
            start, end = segment.start, segment.end
            base, stop = stop, stop + end - start
            slots = _slots(self._table[segment.sequence.place], 0, end, self._size)
            packed[0, base:stop] = segment.tokens
            packed[1, base:stop] = np.arange(start, end)
            packed[2, base:stop] = slots[start:]
            history = None if start == 0 else self._tensor(slots)
            parts.append(PrefillPart(base, stop, start, history))
            if segment.logprob_rows:
                prompt_rows.append(base - start + np.arange(*segment.logprob_rows))
            if segment.last:
                sampled_rows.append(np.arange(stop - 1 - len(segment.guess), stop))
        return parts, prompt_rows + sampled_rows

    def _segments(
        self, plan: Plan, parts: list[PrefillPart], lengths: NDArray[np.int64], base: int
    ) -> tuple[Segments, NDArray[np.int64]]:
        """Of all sequences, and the block tables of those that decode."""
        count = len(parts) + len(lengths)
        spans = np.empty((count, 3), dtype=np.int32)
        for index, part in enumerate(parts):
            spans[index] = part.start, part.stop - part.start, part.total
        spans[len(parts) :, 0] = np.arange(base, base + len(lengths))
        spans[len(parts) :, 1] = 1
        spans[len(parts) :, 2] = lengths
        places = [sequence.place for sequence in plan.sequences]
        longest = int(spans[:, 2].max())
        tables = self._table[places, : -(-longest // self._size)]
        segments = Segments(
            spans=torch.from_numpy(spans).to(self._device),
            tables=torch.from_numpy(tables.astype(np.int32)).to(self._device),
            decode_start=len(parts),
            max_tokens=longest,
            longest=int(spans[:, 1].max()),
        )
        width = int(-(-lengths.max() // self._size)) if len(lengths) else 0
        return segments, tables[len(parts) :, :width]

    def _extend(self, sequence: Sequence) -> None:
        """Enter the blocks that are new."""
        place, blocks = sequence.place, sequence.blocks
        known = self._known[place]
        self._table[place, known : len(blocks)] = blocks[known:]
        self._known[place] = len(blocks)

    def _tensor(self, array: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)
