"""What the core needs of a model, whichever library computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from lmi.dist.batch import StepBatch
from lmi.dist.kernels.base import Kernels
from lmi.dist.kv import LayerCache, LayerShape


@dataclass(frozen=True, slots=True, eq=False)
class ModelFacts:
    """What is fixed once a model is loaded.

    kind: its `model_type`. dtype: of its weights and states. layers: what each attention layer
    keeps per token on this rank. model_len: tokens it was made for; length_note: why LMI-Dist
    serves fewer, or empty. kernels: the operations it is computed with, where they are ours.
    details: for the start-up log, in order. engine: whose layers these are, as `EngineInfo.engine`
    has it. cache_dtype: of K and V, where that is another than dtype.
    """

    kind: str
    device: torch.device
    dtype: torch.dtype
    vocab_size: int
    eos_ids: frozenset[int]
    layers: tuple[LayerShape, ...]
    model_len: int
    length_note: str
    kernels: Kernels | None
    details: tuple[tuple[str, str], ...]
    engine: str = "lmi-dist"
    cache_dtype: torch.dtype | None = None

    @property
    def kept(self) -> torch.dtype:
        """The dtype of the KV cache."""
        return self.cache_dtype or self.dtype

    @property
    def bytes_per_token(self) -> int:
        """Of K and V in all layers."""
        return sum(layer.numbers_per_token for layer in self.layers) * self.kept.itemsize


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the model's own attention gives for a short prompt: ids, logits (tokens, vocabulary)."""

    ids: list[int]
    logits: torch.Tensor


class PagedModel(Protocol):
    """A model over paged KV caches. Not thread-safe; one step at a time."""

    facts: ModelFacts

    def attach(self, caches: Sequence[LayerCache]) -> None:
        """Take the KV caches, one per layer of the facts."""

    def logits(self, batch: StepBatch) -> torch.Tensor:
        """The logits of the batch's wanted rows: (rows, vocabulary), of any float dtype."""

    def reference(self) -> Reference | None:
        """What paged attention is compared with once, or None where it is the model's own."""
