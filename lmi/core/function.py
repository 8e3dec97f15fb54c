"""The Function protocol: a handler of a request that is no generation by an engine.

The user's `handle(inputs)`, a pipeline of transformers, a classifier. Like `Engine` a completion
queue, and like an engine it works in processes of its own, never in the front's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from lmi.core.call import Call, Head
from lmi.core.errors import LmiError


class Piece(NamedTuple):
    """A part of one call's answer.

    head: on the first piece of an answer, and on no other. last: nothing comes after this piece.
    error: only on a last piece; before the first byte it takes the answer's place, later it ends a
    stream that has begun.
    """

    call_id: int
    data: bytes = b""
    head: Head | None = None
    last: bool = False
    error: LmiError | None = None


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """Fixed facts. name: the handler, for people. workers: processes. concurrency: calls that run
    at once, of all workers together. details: for the start-up log, in order."""

    name: str
    workers: int
    concurrency: int
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class FunctionStats:
    """A moment's load. restarts: of workers, since the start."""

    running: int = 0
    waiting: int = 0
    workers: int = 0
    restarts: int = 0


class Function(Protocol):
    """All calls come from one thread. Every call that was submitted gets exactly one last piece."""

    @property
    def info(self) -> FunctionInfo:
        """Fixed facts of what was loaded."""

    def submit(self, call_id: int, call: Call, /) -> None:
        """Accept a call, or raise RequestError: then no piece of it will come. Ids are fresh."""

    def poll(self, timeout: float, /) -> Sequence[Piece]:
        """The pieces that are there; waits up to `timeout` seconds for one.

        A worker that dies ends the calls that it held with an error each and is replaced. Raises
        EngineDead when no worker is left and none will come back.
        """

    def cancel(self, call_id: int, /) -> None:
        """The client left: drop the call if it waits, stop reading its stream if it runs.

        Its last piece still comes. An id that is unknown or over is ignored.
        """

    def on_ready(self, wake: Callable[[], None], /) -> None:
        """Register a callback, called from any thread when poll has news or would raise."""

    def stats(self) -> FunctionStats:
        """The load now; cheap, never blocks."""

    def close(self) -> None:
        """End the workers. Idempotent."""
