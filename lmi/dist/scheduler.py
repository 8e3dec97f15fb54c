"""The planner: which tokens the next forward pass computes. Pure, deterministic, no torch.

Each step, in this order:
1. Decode: every running sequence with one token left gets it. One that needs a new KV block while
   none is free takes it from the youngest running sequence, which goes back to the front of the
   queue and is computed again later (preemption by recompute; vLLM's paper, section 4.5).
2. Prefill: running sequences with more tokens left get up to `prefill_tokens` in total (chunked
   prefill; Sarathi).
3. Admission, first come first served, while a place, blocks and prefill tokens remain.

Rules that a later editor must keep:
- A sequence gets the blocks of all tokens it has when it is admitted. So a prefill never waits for
  blocks half-way, and only decodes preempt.
- The oldest running sequence is preempted only when it is alone, and alone it always fits, because
  admission (`lmi.dist.admission`) and `stop_at` bound it by the pool. So every sequence ends.
- A newcomer must leave one block per running sequence free, or those would preempt it at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from lmi.dist.blocks import BlockPool
from lmi.dist.sequence import Sequence

# Prompt logprobs need the logits of every prompt position; this bounds their memory per step.
LOGPROB_CHUNK: Final = 256


class Segment(NamedTuple):
    """Tokens [start, stop) of a sequence, to be computed in one forward pass."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def last(self) -> bool:
        """Whether the sequence's next token can be sampled afterwards."""
        return self.stop == len(self.sequence.tokens)

    @property
    def logprob_rows(self) -> tuple[int, int] | None:
        """The positions [first, end) of this segment that give prompt logprobs not yet known.

        The logits at position i tell the probability of the prompt's token i + 1.
        """
        known = self.sequence.prompt_logprobs
        if known is None:
            return None
        first, end = max(self.start, len(known)), min(self.stop, self.sequence.prompt_len - 1)
        return (first, end) if first < end else None


@dataclass(frozen=True, slots=True)
class Plan:
    """One forward pass: prefill segments, then sequences that decode one token each.

    admitted: those that came from the queue in this step (their places and blocks are new).
    """

    prefill: list[Segment]
    decode: list[Sequence]
    admitted: list[Sequence]

    def __bool__(self) -> bool:
        return bool(self.decode or self.prefill)

    @property
    def sequences(self) -> list[Sequence]:
        """Every sequence with tokens in this pass, in the order of the packed batch."""
        return [segment.sequence for segment in self.prefill] + self.decode


class Scheduler:
    """The queue, the running sequences and who owns which KV block."""

    def __init__(
        self, *, blocks: int, block_size: int, max_batch: int, prefill_tokens: int
    ) -> None:
        self.pool = BlockPool(blocks)
        self.preemptions = 0
        self.chunks = 0
        self._block_size = block_size
        self._prefill_tokens = prefill_tokens
        self._running: list[Sequence] = []  # oldest first
        self._waiting: OrderedDict[tuple[int, int], Sequence] = OrderedDict()
        self._places = list(range(max_batch - 1, -1, -1))

    @property
    def running(self) -> int:
        """Sequences that own blocks."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Sequences in the queue."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[Sequence]:
        """Every living sequence: the running ones, then the queue."""
        yield from self._running
        yield from self._waiting.values()

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence that `admission.check` has passed."""
        self._waiting[sequence.key] = sequence

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that ended, wherever it is; its blocks are free again."""
        if sequence.place < 0:
            del self._waiting[sequence.key]
        else:
            self._running.remove(sequence)
            self._release(sequence)

    def schedule(self) -> Plan:
        """Plan the next step. Afterwards the caller computes it and advances each `done`."""
        before = self.preemptions
        decode = self._plan_decode()
        prefill, left = self._plan_prefill()
        # After a preemption the queue's head is what was just put back: let it rest this step.
        admitted = self._admit(prefill, left) if self.preemptions == before else []
        self.chunks += sum(not segment.last for segment in prefill)
        return Plan(prefill, decode, admitted)

    def _plan_decode(self) -> list[Sequence]:
        decode: list[Sequence] = []
        position = 0
        # Preemption shortens the list from its end, so only sequences not yet looked at vanish.
        while position < len(self._running):
            sequence = self._running[position]
            position += 1
            if sequence.pending > 1:
                continue
            if len(sequence.blocks) * self._block_size < len(sequence.tokens):
                while not self.pool.free and self._running[-1] is not sequence:
                    self._preempt_youngest()
                if not self.pool.free:
                    self._preempt_youngest()
                    break
                sequence.blocks.extend(self.pool.allocate(1))
            decode.append(sequence)
        return decode

    def _plan_prefill(self) -> tuple[list[Segment], int]:
        left = self._prefill_tokens
        prefill: list[Segment] = []
        for sequence in self._running:
            if left == 0:
                break
            if sequence.pending > 1:
                prefill.append(self._chunk(sequence, left))
                left -= prefill[-1].stop - prefill[-1].start
        return prefill, left

    def _admit(self, prefill: list[Segment], left: int) -> list[Sequence]:
        admitted: list[Sequence] = []
        while left and self._places and self._waiting:
            sequence = next(iter(self._waiting.values()))
            need = -(-len(sequence.tokens) // self._block_size)
            if need + len(self._running) > self.pool.free:
                break
            del self._waiting[sequence.key]
            sequence.place = self._places.pop()
            sequence.blocks = self.pool.allocate(need)
            self._running.append(sequence)
            admitted.append(sequence)
            prefill.append(self._chunk(sequence, left))
            left -= prefill[-1].stop - prefill[-1].start
        return admitted

    def _chunk(self, sequence: Sequence, left: int) -> Segment:
        if sequence.prompt_logprobs is not None:
            left = min(left, LOGPROB_CHUNK)
        start = sequence.done
        return Segment(sequence, start, min(len(sequence.tokens), start + left))

    def _preempt_youngest(self) -> None:
        sequence = self._running.pop()
        self._release(sequence)
        sequence.done = 0
        self._waiting[sequence.key] = sequence
        self._waiting.move_to_end(sequence.key, last=False)
        self.preemptions += 1

    def _release(self, sequence: Sequence) -> None:
        self.pool.deallocate(sequence.blocks)
        sequence.blocks = []
        self._places.append(sequence.place)
        sequence.place = -1
