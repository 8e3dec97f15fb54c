"""The planner: which tokens the next forward pass computes. Pure, deterministic, no torch.

Each step, in this order:
1. Decode: every running sequence with one token left gets it. One that needs a new KV block while
   none is free takes it from the youngest running sequence, which goes back to the front of the
   queue and is computed again later (preemption by recompute; vLLM's paper, section 4.5).
2. Prefill: running sequences with more tokens left get up to `prefill_tokens` in total (chunked
   prefill; Sarathi).
3. Admission, first come first served, while a place, blocks and prefill tokens remain. A newcomer
   shares the KV blocks of its leading tokens where they exist: those of the prefix cache, or its
   sibling's (another choice of the same request).
4. Guesses: what is left of the budget and of the blocks goes to tokens that may come next
   (`lmi.dist.speculate`).

Rules that a later editor must keep:
- A sequence gets the blocks of all tokens it has when it is admitted. So a prefill never waits for
  blocks half-way, and only decodes preempt.
- The oldest running sequence is preempted only when it is alone, and alone it always fits, because
  admission (`lmi.dist.admission`) and `stop_at` bound it by the pool. So every sequence ends.
- A newcomer must leave one block per running sequence free, or those would preempt it at once. A
  guess must leave as many, and never preempts.
- A shared block is never written: it is full, or its part that is wanted is copied into a block of
  the newcomer's own before the step (`Plan.copies`). All prompt blocks of siblings are one, but for
  the last.
- The choices of a request wait while one of them computes the prompt (they are *parked*), and come
  back to the front of the queue when it has, or when it is gone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, NamedTuple

from lmi.dist.blocks import BlockPool
from lmi.dist.plan import Plan, Segment
from lmi.dist.prefix import NoPrefixes, Prefixes
from lmi.dist.sequence import Sequence
from lmi.dist.speculate import Guesser, NoGuesser

# Prompt logprobs need the logits of every prompt position; this bounds their memory per step.
LOGPROB_CHUNK: Final = 256


class _Found(NamedTuple):
    """KV that a newcomer need not compute, of its first `tokens` tokens.

    blocks: whole ones, which it shares. copied: the block that holds the rest, None without a rest.
    cached: how many of the tokens were in the cache before the request came.
    """

    tokens: int
    blocks: list[int]
    copied: int | None
    cached: int


class Scheduler:
    """The queue, the running sequences and who owns which KV block."""

    def __init__(
        self,
        *,
        blocks: int,
        block_size: int,
        max_batch: int,
        prefill_tokens: int,
        prefixes: Prefixes | None = None,
        guesser: Guesser | None = None,
    ) -> None:
        self._prefixes = NoPrefixes() if prefixes is None else prefixes
        self._guesser = NoGuesser() if guesser is None else guesser
        self.pool = BlockPool(blocks, self._prefixes)
        self.preemptions = 0
        self.chunks = 0
        self.reused_tokens = 0
        self.guessed_tokens = 0
        self.accepted_tokens = 0
        self._block_size = block_size
        self._prefill_tokens = prefill_tokens
        self._running: list[Sequence] = []  # oldest first
        self._waiting: OrderedDict[tuple[int, int], Sequence] = OrderedDict()
        self._parked: dict[int, list[Sequence]] = {}  # by request, in the order they came
        self._siblings: dict[int, list[Sequence]] = {}  # running choices of requests with several
        self._places = list(range(max_batch - 1, -1, -1))

    @property
    def running(self) -> int:
        """Sequences that own blocks."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Sequences in the queue, and those that wait for a sibling's prompt."""
        return len(self._waiting) + sum(map(len, self._parked.values()))

    def __iter__(self) -> Iterator[Sequence]:
        """Every living sequence: the running ones, the queue, the parked."""
        yield from self._running
        yield from self._waiting.values()
        for parked in self._parked.values():
            yield from parked

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence that `admission.check` has passed."""
        self._waiting[sequence.key] = sequence

    def remove(self, sequence: Sequence, *, tainted: bool = False) -> None:
        """Forget a sequence that ended, wherever it is; its blocks are free again.

        tainted: they may hold numbers that are not finite. Then `pool.take_dirty` must be asked
        before the next plan.
        """
        self._guesser.forget(sequence)
        if sequence.place >= 0:
            if tainted:
                self.pool.taint(sequence.blocks)
            self._running.remove(sequence)
            self._release(sequence)
        elif sequence.key in self._waiting:
            del self._waiting[sequence.key]
        else:
            parked = self._parked[sequence.request.id]
            parked.remove(sequence)
            if not parked:
                del self._parked[sequence.request.id]

    def schedule(self) -> Plan:
        """Plan the next step. Afterwards the caller computes it and reports with `computed`."""
        before = self.preemptions
        if self._parked:
            self._unpark()
        grown: list[Sequence] = []
        decode = self._plan_decode(grown)
        prefill, left = self._plan_prefill()
        admitted: list[Sequence] = []
        copies: list[tuple[int, int]] = []
        # After a preemption the queue's head is what was just put back: let it rest this step.
        if self.preemptions == before:
            left = self._admit(prefill, decode, left, admitted, copies)
        guessed = self._plan_guesses(decode, left, grown)
        self.chunks += sum(not segment.last for segment in prefill)
        return Plan(prefill, decode, admitted, guessed, copies, grown)

    def computed(self, sequence: Sequence, done: int) -> None:
        """The step has succeeded: K and V of the sequence's first `done` tokens are written."""
        sequence.done = done
        self._prefixes.record(sequence, self.pool.tainted)

    def judged(self, segment: Segment, accepted: int) -> None:
        """So many of a segment's guesses came true."""
        self.guessed_tokens += len(segment.guess)
        self.accepted_tokens += accepted
        self._guesser.judged(segment, accepted)

    def _plan_decode(self, grown: list[Sequence]) -> list[Sequence]:
        decode: list[Sequence] = []
        position = 0
        # Preemption shortens the list from its end, so only sequences not yet looked at vanish.
        while position < len(self._running):
            sequence = self._running[position]
            position += 1
            if len(sequence.tokens) - sequence.done > 1:
                continue
            if len(sequence.blocks) * self._block_size < len(sequence.tokens):
                while not self.pool.free and self._running[-1] is not sequence:
                    self._preempt_youngest()
                if not self.pool.free:
                    self._preempt_youngest()
                    break
                sequence.blocks.extend(self.pool.allocate(1))
                grown.append(sequence)
            decode.append(sequence)
        return decode

    def _plan_prefill(self) -> tuple[list[Segment], int]:
        left = self._prefill_tokens
        prefill: list[Segment] = []
        for sequence in self._running:
            if left == 0:
                break
            if len(sequence.tokens) - sequence.done > 1:
                prefill.append(self._chunk(sequence, left))
                left -= prefill[-1].stop - prefill[-1].start
        return prefill, left

    def _admit(
        self,
        prefill: list[Segment],
        decode: list[Sequence],
        left: int,
        admitted: list[Sequence],
        copies: list[tuple[int, int]],
    ) -> int:
        """Let newcomers in: extends the lists, and returns what is left of the prefill tokens."""
        while left and self._places and self._waiting:
            sequence = next(iter(self._waiting.values()))
            found = self._find(sequence)
            if found is None:
                del self._waiting[sequence.key]
                self._parked.setdefault(sequence.request.id, []).append(sequence)
                continue
            need = -(-len(sequence.tokens) // self._block_size) - len(found.blocks)
            free = self.pool.free - self.pool.idle(found.blocks)
            if need + len(self._running) > free:
                break
            del self._waiting[sequence.key]
            self.pool.share(found.blocks)
            sequence.blocks = found.blocks + self.pool.allocate(need)
            if found.copied is not None:
                copies.append((found.copied, sequence.blocks[len(found.blocks)]))
            self._start(sequence, found)
            admitted.append(sequence)
            if sequence.pending == 1:
                decode.append(sequence)
                left -= 1
            else:
                prefill.append(self._chunk(sequence, left))
                left -= prefill[-1].stop - prefill[-1].start
        return left

    def _start(self, sequence: Sequence, found: _Found) -> None:
        self.reused_tokens += found.tokens
        sequence.done = found.tokens
        if sequence.cached is None:
            sequence.cached = found.cached
        sequence.place = self._places.pop()
        self._running.append(sequence)
        if sequence.request.choices > 1:
            self._siblings.setdefault(sequence.request.id, []).append(sequence)

    def _find(self, sequence: Sequence) -> _Found | None:
        """What the sequence need not compute; None while a sibling is about to have more."""
        blocks = self._prefixes.find(sequence, sequence.reusable)
        tokens = len(blocks) * self._block_size
        found = _Found(tokens, blocks, None, tokens)
        siblings = self._siblings.get(sequence.request.id)
        common = min(sequence.reusable, sequence.prompt_len)
        if not siblings or common <= found.tokens:
            return found
        for sibling in siblings:
            # Of those that have it the first did not get it in this very step, by a copy that is
            # still to be made: whom it would have been copied from stands before it.
            if sibling.done >= common:
                whole, rest = divmod(common, self._block_size)
                blocks = sibling.blocks[:whole]
                copied = sibling.blocks[whole] if rest else None
                return _Found(common, blocks, copied, sibling.cached or 0)
        return None

    def _unpark(self) -> None:
        """Put choices back to the queue's front when a sibling has the prompt, or none is left."""
        for request_id in reversed(list(self._parked)):
            siblings = self._siblings.get(request_id, ())
            if siblings and not any(one.done >= one.prompt_len for one in siblings):
                continue
            for sequence in reversed(self._parked.pop(request_id)):
                self._queue_first(sequence)

    def _chunk(self, sequence: Sequence, left: int) -> Segment:
        if sequence.prompt_logprobs is not None:
            left = min(left, LOGPROB_CHUNK)
        start = sequence.done
        return Segment(sequence, start, min(len(sequence.tokens), start + left))

    def _plan_guesses(
        self, decode: list[Sequence], left: int, grown: list[Sequence]
    ) -> list[Segment]:
        """Take the sequences with guesses out of `decode`."""
        guessed: list[Segment] = []
        for segment in self._guesser.guess(decode, left):
            sequence = segment.sequence
            need = -(-segment.end // self._block_size) - len(sequence.blocks)
            if need > 0:
                if need + len(self._running) > self.pool.free:
                    continue
                sequence.blocks.extend(self.pool.allocate(need))
                grown.append(sequence)
            decode.remove(sequence)
            guessed.append(segment)
        return guessed

    def _preempt_youngest(self) -> None:
        sequence = self._running.pop()
        self._release(sequence)
        sequence.done = 0
        self._queue_first(sequence)
        self.preemptions += 1

    def _queue_first(self, sequence: Sequence) -> None:
        self._waiting[sequence.key] = sequence
        self._waiting.move_to_end(sequence.key, last=False)

    def _release(self, sequence: Sequence) -> None:
        self.pool.deallocate(sequence.blocks)
        sequence.blocks = []
        sequence.recorded = 0
        self._places.append(sequence.place)
        sequence.place = -1
        if sequence.request.choices > 1:
            siblings = self._siblings[sequence.request.id]
            siblings.remove(sequence)
            if not siblings:
                del self._siblings[sequence.request.id]
