"""Our own forward pass of the Llama family: a layer is six operations of `lmi.dist.kernels`.

    qkv -> rotate and write K, V -> attention -> output
        -> (sum over ranks) + residual, norm -> gate, up -> silu * -> down
        -> (sum over ranks) + residual, norm of the next layer

The residual stream is one tensor that the layers add to in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lmi.dist.batch import StepBatch
from lmi.dist.collectives.base import Collective
from lmi.dist.decoder.config import DecoderConfig
from lmi.dist.decoder.mixture import Mixture
from lmi.dist.decoder.rope import rope_table
from lmi.dist.decoder.weights import DecoderLayer, Weights
from lmi.dist.kernels.base import Kernels, Segments
from lmi.dist.kv import LayerCache
from lmi.dist.model import ModelFacts, Reference


class Decoder:
    """A `lmi.dist.model.PagedModel` of our own.

    collective: None on a single rank. positions: tokens of the longest sequence. gathers_logits:
    whether each rank computes a part of the vocabulary.
    """

    def __init__(
        self,
        config: DecoderConfig,
        weights: Weights,
        kernels: Kernels,
        facts: ModelFacts,
        collective: Collective | None,
        *,
        positions: int,
        gathers_logits: bool,
    ) -> None:
        self.facts = facts
        self._weights = weights
        self._kernels = kernels
        self._epsilon = config.epsilon
        self._rope = rope_table(config.rope, positions, facts.device)
        self._caches: list[LayerCache] = []
        self._add_norm = kernels.add_rms_norm
        if collective is not None:
            collective.kernels = kernels
            self._add_norm = collective.add_rms_norm
        self._gather = collective.all_gather if collective and gathers_logits else None

    @property
    def asks_the_host(self) -> bool:
        """Whether a step waits for numbers that were computed in it: which experts are needed."""
        return any(isinstance(layer.mlp, Mixture) for layer in self._weights.layers)

    def attach(self, caches: Sequence[LayerCache]) -> None:
        """Take the KV caches."""
        self._caches = list(caches)

    def reference(self) -> Reference | None:
        """None: paged attention is all it has."""
        return None

    def logits(self, batch: StepBatch) -> torch.Tensor:
        """See the protocol."""
        return self.forward(
            batch.token_ids[0], batch.positions[0], batch.slots, batch.logit_rows, batch.segments
        )

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        wanted: torch.Tensor,
        segments: Segments,
    ) -> torch.Tensor:
        """ids, positions, slots (rows) int64; wanted: the rows whose logits are returned."""
        kernels, weights, epsilon = self._kernels, self._weights, self._epsilon
        residual = kernels.embed(weights.table, ids)
        rows = kernels.rms_norm(residual, weights.first_norm, epsilon)
        *layers, last = zip(weights.layers, self._caches, strict=True)
        for layer, cache in layers:
            rows = self._attend(layer, cache, rows, positions, slots, segments)
            rows = self._add_norm(residual, layer.output(rows), layer.second_norm, epsilon)
            rows = self._add_norm(residual, layer.mlp(rows), layer.next_norm, epsilon)
        layer, cache = last
        rows = self._attend(layer, cache, rows, positions, slots, segments)
        # After the last attention only the wanted rows matter; of a prompt's chunk there are none.
        if not wanted.numel():
            return residual.new_empty((0, self.facts.vocab_size))
        if segments.decode_start:  # where all decode, every row is wanted, in order
            rows, residual = rows[wanted], residual[wanted]
        rows = self._add_norm(residual, layer.output(rows), layer.second_norm, epsilon)
        rows = self._add_norm(residual, layer.mlp(rows), layer.next_norm, epsilon)
        logits = weights.head(rows)
        return logits if self._gather is None else self._gather(logits)

    def _attend(
        self,
        layer: DecoderLayer,
        cache: LayerCache,
        rows: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        segments: Segments,
    ) -> torch.Tensor:
        query = self._kernels.rotate_and_write(
            layer.qkv(rows),
            self._rope,
            positions,
            slots,
            cache,
            layer.heads,
            layer.query_norm,
            layer.key_norm,
            self._epsilon,
        )
        return self._kernels.attention(query, cache, segments, layer.heads)
