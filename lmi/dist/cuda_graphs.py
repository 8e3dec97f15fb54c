"""Decode steps as CUDA graphs: one launch in the place of some hundred.

A step of decoding rows alone does the same launches each time; only the numbers in its inputs
differ. So it is captured once per batch size over buffers that stay where they are, and replayed: a
step copies its inputs into them. A batch between two captured sizes is filled up with rows that
have no tokens, whose K and V go to the trash block. Steps with prompts or speculated rows run as
before.

The rule for whoever edits a captured forward pass: no value may travel from the device to the host
in it, and nothing may be sized by the inputs' numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch

from lmi.dist.batch import StepBatch
from lmi.dist.config import DistConfig
from lmi.dist.decoder.decoder import Decoder
from lmi.dist.kernels.base import Segments
from lmi.dist.kv import LayerCache
from lmi.dist.model import PagedModel, Reference

# Runs before a capture: kernels compile and libraries set up their workspaces in the first.
_WARM_UPS: Final = 2
# Sizes beyond the smallest: padding wastes at most a step, and a graph takes time and memory.
_FINE_STEP: Final = 8
_FINE_LIMIT: Final = 64
_COARSE_STEP: Final = 16


class Replay(Protocol):
    """A captured piece of work. output: what it returned, written anew by each replay."""

    output: torch.Tensor

    def replay(self) -> None:
        """Do the work again."""


Capture = Callable[[Callable[[], torch.Tensor]], Replay]


def graphed(
    model: PagedModel, config: DistConfig, max_model_len: int, *, alone: bool
) -> PagedModel:
    """The model with its decode steps as graphs, or as it is where that can't be.

    It can for our own decoder over Triton's kernels on a CUDA device, unless the steps of a layer
    depend on its numbers (a mixture of experts). alone: without other ranks, whose collectives may
    wait on the host.
    """
    if not (
        config.cuda_graphs
        and alone
        and isinstance(model, Decoder)
        and model.facts.kernels is not None
        and model.facts.kernels.name == "triton"
        and model.facts.device.type == "cuda"
        and not model.asks_the_host
    ):
        return model
    return GraphedModel(
        model,
        max_batch=config.max_batch,
        blocks_per_sequence=-(-max_model_len // config.block_size),
        block_size=config.block_size,
        capture=CudaCapture(model.facts.device),
    )


def capture_sizes(max_batch: int) -> list[int]:
    """The batch sizes that are captured, ascending, up to and with max_batch."""
    sizes = [1, 2, 4, *range(_FINE_STEP, _FINE_LIMIT + 1, _FINE_STEP)]
    sizes += range(_FINE_LIMIT + _COARSE_STEP, max_batch + 1, _COARSE_STEP)
    return [*(size for size in sizes if size < max_batch), max_batch]


@dataclass(frozen=True, slots=True, eq=False)
class _Inputs:
    """The buffers of the largest size; a smaller size is their beginning.

    tokens: (3, rows) int64: ids, positions, slots. wanted: (rows) int64, each row. spans, tables:
    see `Segments`.
    """

    tokens: torch.Tensor
    wanted: torch.Tensor
    spans: torch.Tensor
    tables: torch.Tensor

    @classmethod
    def empty(cls, rows: int, width: int, device: torch.device) -> _Inputs:
        """Rows without tokens: 0 everywhere is the trash block and its slot."""
        wanted = torch.arange(rows, device=device)
        spans = torch.zeros((rows, 3), dtype=torch.int32, device=device)
        spans[:, 0] = wanted
        spans[:, 1] = 1
        return cls(
            tokens=torch.zeros((3, rows), dtype=torch.int64, device=device),
            wanted=wanted,
            spans=spans,
            tables=torch.zeros((rows, width), dtype=torch.int32, device=device),
        )

    def fill(self, batch: StepBatch, size: int) -> None:
        """Take over a batch of at most `size` rows; the rows up to `size` get no tokens."""
        rows = batch.token_ids.shape[1]
        for buffer, source in zip(
            self.tokens, (batch.token_ids[0], batch.positions[0], batch.slots), strict=True
        ):
            buffer[:rows].copy_(source)
        tables = batch.segments.tables
        # Columns beyond the batch's keep old numbers: no row has tokens there.
        self.tables[:rows, : tables.shape[1]].copy_(tables)
        self.spans[:rows].copy_(batch.segments.spans)
        if rows < size:
            self.tokens[:, rows:size].zero_()
            self.spans[rows:size, 2].zero_()


class GraphedModel:
    """A `PagedModel` that replays its decode steps; all else goes to the model itself.

    blocks_per_sequence: the most KV blocks that one sequence may have; block_size: tokens in one.
    capture: `CudaCapture`, or a stand-in.
    """

    def __init__(
        self,
        model: Decoder,
        *,
        max_batch: int,
        blocks_per_sequence: int,
        block_size: int,
        capture: Capture,
    ) -> None:
        self.facts = model.facts
        self._model = model
        self._sizes = capture_sizes(max_batch)
        self._max_tokens = blocks_per_sequence * block_size
        self._inputs = _Inputs.empty(max_batch, blocks_per_sequence, model.facts.device)
        self._capture = capture
        self._graphs: dict[int, Replay] = {}

    @torch.inference_mode()
    def attach(self, caches: Sequence[LayerCache]) -> None:
        """Take the KV caches and capture the steps over them, the largest first: the smaller ones
        then find room in its memory. Writes to the trash block only."""
        self._graphs.clear()
        self._model.attach(caches)
        for size in reversed(self._sizes):
            self._graphs[size] = self._capture(self._step(size))

    def reference(self) -> Reference | None:
        """The model's."""
        return self._model.reference()

    def logits(self, batch: StepBatch) -> torch.Tensor:
        """See `PagedModel`; of a replayed step valid until the next one."""
        rows = batch.token_ids.shape[1]
        one_each = batch.segments.longest == 1 and batch.logit_rows.numel() == rows
        if not one_each or rows > self._sizes[-1]:
            return self._model.logits(batch)
        size = next(size for size in self._sizes if size >= rows)
        self._inputs.fill(batch, size)
        graph = self._graphs[size]
        graph.replay()
        return graph.output[:rows]

    def _step(self, size: int) -> Callable[[], torch.Tensor]:
        inputs = self._inputs
        ids, positions, slots = inputs.tokens[:, :size]
        # max_tokens is the most that can be, not the batch's: it sizes launches.
        segments = Segments(
            spans=inputs.spans[:size],
            tables=inputs.tables[:size],
            decode_start=0,
            max_tokens=self._max_tokens,
            longest=1,
        )
        wanted = inputs.wanted[:size]
        return lambda: self._model.forward(ids, positions, slots, wanted, segments)


class _CudaReplay:
    """A `Replay` of a CUDA graph."""

    def __init__(self, graph: torch.cuda.CUDAGraph, output: torch.Tensor) -> None:
        self._graph = graph
        self.output = output

    def replay(self) -> None:
        """Launch the graph on the current stream."""
        self._graph.replay()


class CudaCapture:
    """A `Capture` on one device; all its graphs share one pool of memory, since only one runs at a
    time and none reads another's output."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], torch.Tensor]) -> Replay:
        """Run the work to warm up, then once more, recording."""
        current = torch.cuda.current_stream(self._device)
        side = torch.cuda.Stream(self._device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                work()
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # thread_local: what other threads of the process do on the device is none of our business.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=side, capture_error_mode="thread_local"
        ):
            output = work()
        return _CudaReplay(graph, output)
