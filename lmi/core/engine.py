"""The Engine protocol: a token source with a completion queue.

A completion queue, not a generator per request and not `step()`: engines that drive themselves (a
process of their own) push, engines that are stepped do one forward pass in `poll`. Both are true to
it. Extra powers (adapters, compiling) are separate small protocols found with isinstance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from lmi.core.types import Delta, GenerationRequest


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What is fixed once an engine is loaded.

    max_model_len: prompt and answer together, in tokens. max_batch: requests that run at once.
    details: what a person would want to read in a start-up log (attention, dtype, threads, KV cache
    size), in order.
    """

    engine: str
    model: str
    max_model_len: int
    vocab_size: int
    max_batch: int
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A moment's load. KV blocks are 0 for an engine without a paged cache."""

    running: int = 0
    waiting: int = 0
    kv_blocks_used: int = 0
    kv_blocks_total: int = 0
    preemptions: int = 0


class Engine(Protocol):
    """All calls come from one thread. See `lmi.core.types` for what is true of the deltas."""

    @property
    def info(self) -> EngineInfo:
        """Fixed facts of the loaded model."""

    def submit(self, request: GenerationRequest, /) -> None:
        """Accept a request, or raise RequestError: then no delta of it will come."""

    def poll(self, timeout: float, /) -> Sequence[Delta]:
        """The deltas that are there; waits up to `timeout` seconds for one. Raises EngineDead."""

    def cancel(self, request_id: int, /) -> None:
        """Stop a request; its CANCELLED finish still comes by `poll`.

        An id that is unknown or over is ignored.
        """

    def on_ready(self, wake: Callable[[], None], /) -> None:
        """Register a callback, called from any thread when poll has news or would raise."""

    def stats(self) -> EngineStats:
        """The load now; cheap, never blocks."""

    def close(self) -> None:
        """Release everything: processes, memory, files. Idempotent; ends what is still live."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter. source: its folder. preload: load it now, not at its first use. pin: never
    give its place to another."""

    name: str
    source: Path
    preload: bool = True
    pin: bool = False


@runtime_checkable
class AdapterHost(Protocol):
    """An engine that serves LoRA adapters; called from the engine's one thread, never blocks."""

    def register_adapter(self, adapter: Adapter, /) -> Future[None]:
        """Register or replace one. The future fails with UnknownAdapter (no adapter there, or one
        that does not fit the model), BadPayload, or OutOfMemory where no place is left."""

    def unregister_adapter(self, name: str, /) -> Future[None]:
        """Forget one; live requests with it go on. The future fails with UnknownAdapter."""

    def adapters(self) -> Mapping[str, Adapter]:
        """The registered ones, by name."""
