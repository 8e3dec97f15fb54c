"""The logits that LMI-Dist computes for a text: through its scheduler, cache and kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lmi.dist.batch import StepBatch
from lmi.dist.collectives.base import Collective
from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore, Progress
from lmi.dist.kv import LayerCache
from lmi.dist.messages import CoreRequest
from lmi.dist.model import ModelFacts, PagedModel, Reference
from lmi.dist.runtimes import load_model


class _Tapped:
    """A model that keeps what it gave."""

    def __init__(self, model: PagedModel) -> None:
        self._model = model
        self.facts: ModelFacts = model.facts
        self.given: list[torch.Tensor] = []

    def attach(self, caches: Sequence[LayerCache]) -> None:
        self._model.attach(caches)

    def logits(self, batch: StepBatch) -> torch.Tensor:
        found = self._model.logits(batch)
        self.given.append(found.float().clone())
        return found

    def reference(self) -> Reference | None:
        return self._model.reference()


class DistLogits:
    """A model folder as LMI-Dist serves it: call it with ids for logits (tokens, vocabulary)."""

    def __init__(self, folder: Path, *, dtype: str = "float32", **options: Any) -> None:
        self._taps: list[_Tapped] = []
        config = DistConfig(folder, max_batch=1, threads=1)
        self._core = EngineCore(replace(config, dtype=dtype, **options), load=self._load)
        self.details = dict(self._taps[0].facts.details)

    def __call__(self, ids: Sequence[int]) -> torch.Tensor:
        (tap,) = self._taps
        tap.given.clear()
        self._core.add(CoreRequest(1, tuple(ids), max_new_tokens=1, prompt_logprobs=True))
        events = []
        while not any(event.finish is not None for event in events):
            events += self._core.step()
        return torch.cat(tap.given)

    def _load(
        self, config: DistConfig, progress: Progress, collective: Collective | None
    ) -> PagedModel:
        self._taps.append(_Tapped(load_model(config, progress, collective)))
        return self._taps[0]
