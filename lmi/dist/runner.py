"""Runs one plan through the model: packed batch in, logits out."""

from __future__ import annotations

from typing import Final

import torch

from lmi.core import ModelError
from lmi.dist.batch import BatchBuilder
from lmi.dist.blocks import TRASH_BLOCK
from lmi.dist.float8 import FLOAT8
from lmi.dist.kv import LayerCache
from lmi.dist.messages import CoreRequest
from lmi.dist.model import PagedModel, Reference
from lmi.dist.plan import Plan
from lmi.dist.scheduler import Scheduler
from lmi.dist.sequence import Sequence
from lmi.dist.unpageable import Unpageable

_PROBE_CHUNK: Final = 3  # prompt tokens per step of the self-check: not a divisor of its lengths
_WARM_UP_TOKENS: Final = 8

# Largest difference of paged and own attention, relative to the logits' spread, by the dtypes of
# model and cache. Far above rounding, far below what a forgotten bias or window does.
_TOLERANCE: Final = {
    torch.float32: 1e-2,
    torch.float16: 0.1,
    torch.bfloat16: 0.25,
    FLOAT8: 0.25,
}


class Runner:
    """The model with its KV caches. Not thread-safe; one step at a time."""

    def __init__(
        self, model: PagedModel, *, blocks: int, block_size: int, max_batch: int, max_model_len: int
    ) -> None:
        facts = model.facts
        self._model = model
        self._device = facts.device
        # One block more than is given out: number 0 is the trash block.
        self._caches = [
            LayerCache(shape, blocks + 1, block_size, facts.kept, facts.device)
            for shape in facts.layers
        ]
        model.attach(self._caches)
        self._builder = BatchBuilder(
            max_batch=max_batch,
            blocks_per_sequence=-(-max_model_len // block_size),
            block_size=block_size,
            dtype=facts.dtype,
            device=facts.device,
        )

    @torch.inference_mode()
    def run(self, plan: Plan) -> torch.Tensor:
        """The logits of a plan, rows as `BatchBuilder.build` orders them: (rows, vocabulary)."""
        if plan.copies:
            self._copy(plan.copies)
        return self._model.logits(self._builder.build(plan))

    def _copy(self, copies: list[tuple[int, int]]) -> None:
        pairs = torch.tensor(copies, device=self._device)
        for cache in self._caches:
            cache.copy(pairs[:, 0], pairs[:, 1])

    @torch.inference_mode()
    def scrub(self, blocks: list[int]) -> None:
        """Zero blocks that may hold numbers that are not finite."""
        rows = torch.tensor([TRASH_BLOCK, *blocks], device=self._device)
        for cache in self._caches:
            cache.scrub(rows)

    def self_check(self, *, blocks: int, block_size: int, max_batch: int) -> None:
        """Compare paged attention with the model's own: raise Unpageable where they differ.

        Two sequences side by side: computed in chunks, then decoded, so that every path of the
        attention runs once. This is the warm-up too, and all of it for a model whose own attention
        is paged.
        """
        scheduler = Scheduler(
            blocks=blocks,
            block_size=block_size,
            max_batch=max_batch,
            prefill_tokens=_PROBE_CHUNK,
        )
        reference = self._model.reference()
        ids = reference.ids if reference is not None else _warm_up_ids(self._model.facts.vocab_size)
        half = len(ids) // 2
        pair = [_probe_sequence(-1, ids[:-1]), _probe_sequence(-2, ids[:half])]
        for sequence in pair:
            scheduler.add(sequence)
        while len(pair[0].tokens) <= len(ids):
            plan = scheduler.schedule()
            logits = self.run(plan).float()
            done = [s.sequence for s in plan.prefill if s.last] + plan.decode
            for segment in plan.prefill:
                segment.sequence.done = segment.stop
            for sequence in plan.decode:
                sequence.done += 1
            for row, sequence in zip(logits, done, strict=True):
                place = len(sequence.tokens)
                if place <= len(ids):
                    self._compare(row, reference, place - 1)
                sequence.tokens.append(ids[min(place, len(ids) - 1)])
        for sequence in pair:
            scheduler.remove(sequence)

    def _compare(self, row: torch.Tensor, reference: Reference | None, place: int) -> None:
        facts = self._model.facts
        if reference is None:
            if not torch.isfinite(row).all():
                raise ModelError(
                    f"{facts.kind}: the model gives logits that are not finite in {facts.dtype}; "
                    "try another dtype, or look at the checkpoint"
                )
            return
        want = reference.logits[place]
        spread = (want.amax() - want.amin()).clamp_min(1e-6)
        difference = ((row - want).abs().amax() / spread).item()
        if not difference <= max(_TOLERANCE[facts.dtype], _TOLERANCE[facts.kept]):
            raise Unpageable(
                f"{facts.kind}: with LMI-Dist's paged attention the logits differ from the model's "
                f"own by {difference:.2g} of their spread; its attention does something that "
                "LMI-Dist does not know"
            )


def _warm_up_ids(vocab_size: int) -> list[int]:
    return [(7 * i + 3) % vocab_size for i in range(_WARM_UP_TOKENS)]


def _probe_sequence(request_id: int, ids: list[int]) -> Sequence:
    request = CoreRequest(id=request_id, prompt=tuple(ids), max_new_tokens=len(ids) + 1)
    return Sequence.of(request, 0, eos_ids=frozenset(), max_model_len=2 * len(ids) + 1)
