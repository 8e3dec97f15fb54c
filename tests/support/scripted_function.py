"""A Function in a test's hands: it takes calls, and brings the pieces that it is told to bring."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lmi.core import Call, EngineDead, FunctionInfo, FunctionStats, Head, LmiError, Piece


class ScriptedFunction:
    """An `lmi.core.Function`. submitted: the calls by id. cancelled: ids, in order."""

    def __init__(self, concurrency: int = 1) -> None:
        self._info = FunctionInfo("scripted", 1, concurrency)
        self.submitted: dict[int, Call] = {}
        self.open: set[int] = set()
        self.cancelled: list[int] = []
        self.workers = 1
        self.closed = 0
        self._pieces: list[Piece] = []
        self._dead: EngineDead | None = None
        self._wake: Callable[[], None] = lambda: None

    @property
    def info(self) -> FunctionInfo:
        return self._info

    @property
    def last(self) -> int:
        """The id of the newest call."""
        return next(reversed(self.submitted))

    def bring(self, *pieces: Piece) -> None:
        """Have these pieces come with the next poll."""
        self._pieces += pieces
        self.open -= {piece.call_id for piece in pieces if piece.last}
        self._wake()

    def answer(self, call_id: int, data: bytes = b"ok", status: int = 200) -> None:
        """Answer a call as a whole."""
        self.bring(Piece(call_id, data, Head(status, "", (("content-type", "x/y"),)), last=True))

    def fail(self, call_id: int, error: LmiError) -> None:
        """End a call with an error."""
        self.bring(Piece(call_id, last=True, error=error))

    def die(self, error: EngineDead) -> None:
        """No worker is left."""
        self.workers, self._dead = 0, error
        self._wake()

    def submit(self, call_id: int, call: Call, /) -> None:
        if self._dead is not None:
            raise self._dead
        assert call_id not in self.submitted
        self.submitted[call_id] = call
        self.open.add(call_id)

    def poll(self, timeout: float, /) -> Sequence[Piece]:
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            return pieces
        if self._dead is not None:
            raise self._dead
        return []

    def cancel(self, call_id: int, /) -> None:
        if call_id in self.open:
            self.cancelled.append(call_id)

    def on_ready(self, wake: Callable[[], None], /) -> None:
        self._wake = wake

    def stats(self) -> FunctionStats:
        return FunctionStats(running=len(self.open), workers=self.workers)

    def close(self) -> None:
        self.closed += 1
