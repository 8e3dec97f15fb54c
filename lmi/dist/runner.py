"""Runs one plan through the model: packed batch in, logits out."""

from __future__ import annotations

from typing import Final

import torch

from lmi.core import ModelError
from lmi.dist.attention import PagedLayer, Step
from lmi.dist.batch import BatchBuilder
from lmi.dist.blocks import TRASH_BLOCK
from lmi.dist.kv import LayerCache, Workspace
from lmi.dist.loader import Loaded
from lmi.dist.messages import CoreRequest
from lmi.dist.probe import set_layer
from lmi.dist.scheduler import Plan, Scheduler
from lmi.dist.sequence import Sequence

# Largest difference of paged and own attention, relative to the logits' spread, by dtype. Far above
# rounding, far below what a forgotten bias or window does.
_PROBE_CHUNK: Final = 3  # prompt tokens per step of the self-check: not a divisor of its lengths
_TOLERANCE: Final = {torch.float32: 1e-2, torch.float16: 0.1, torch.bfloat16: 0.25}


class Runner:
    """The model with its KV caches. Not thread-safe; one step at a time."""

    def __init__(
        self, loaded: Loaded, *, blocks: int, block_size: int, max_batch: int, max_model_len: int
    ) -> None:
        self._loaded = loaded
        self._step = Step()
        workspace = Workspace(loaded.dtype, loaded.device)
        set_layer(loaded.model.modules(), None)
        self._caches: list[LayerCache] = []
        for facts in loaded.layers:
            # One block more than is given out: number 0 is the trash block.
            cache = LayerCache(facts.shape, blocks + 1, block_size, loaded.dtype, loaded.device)
            set_layer([facts.module], PagedLayer(cache, self._step, workspace))
            self._caches.append(cache)
        self._builder = BatchBuilder(
            max_batch=max_batch,
            blocks_per_sequence=-(-max_model_len // block_size),
            block_size=block_size,
            dtype=loaded.dtype,
            device=loaded.device,
        )

    @torch.inference_mode()
    def run(self, plan: Plan) -> torch.Tensor:
        """The logits of a plan, rows as `BatchBuilder.build` orders them: (rows, vocabulary)."""
        batch = self._builder.build(plan)
        self._step.batch = batch
        try:
            return self._loaded.logits(batch.token_ids, batch.positions, batch.logit_rows)
        finally:
            self._step.batch = None

    @torch.inference_mode()
    def scrub(self, blocks: list[int]) -> None:
        """Zero blocks that may hold numbers that are not finite."""
        rows = torch.tensor([TRASH_BLOCK, *blocks], device=self._loaded.device)
        for cache in self._caches:
            cache.scrub(rows)

    def self_check(self, *, blocks: int, block_size: int, max_batch: int) -> None:
        """Compare paged attention with the model's own: raise ModelError where they differ.

        Two sequences side by side: computed in chunks, then decoded, so that every path of the
        attention runs once. This is the warm-up too.
        """
        scheduler = Scheduler(
            blocks=blocks,
            block_size=block_size,
            max_batch=max_batch,
            prefill_tokens=_PROBE_CHUNK,
        )
        ids, reference = self._loaded.probe_ids, self._loaded.reference
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
                    self._compare(row, reference[place - 1])
                sequence.tokens.append(ids[min(place, len(ids) - 1)])
        for sequence in pair:
            scheduler.remove(sequence)

    def _compare(self, row: torch.Tensor, reference: torch.Tensor) -> None:
        spread = (reference.amax() - reference.amin()).clamp_min(1e-6)
        difference = ((row - reference).abs().amax() / spread).item()
        if not difference <= _TOLERANCE[self._loaded.dtype]:
            raise ModelError(
                f"{self._loaded.model.config.model_type}: with LMI-Dist's paged attention the "
                f"logits differ from the model's own by {difference:.2g} of their spread; its "
                "attention does something that LMI-Dist does not know"
            )


def _probe_sequence(request_id: int, ids: list[int]) -> Sequence:
    request = CoreRequest(id=request_id, prompt=tuple(ids), max_new_tokens=len(ids) + 1)
    return Sequence.of(request, 0, eos_ids=frozenset(), max_model_len=2 * len(ids) + 1)
