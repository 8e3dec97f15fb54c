"""Answers as the parts that a worker sends, the same for both of its loops."""

from __future__ import annotations

from lmi.core import Head
from lmi.custom.answers import Chunk, Whole, failure, is_out_of_memory
from lmi.custom.api.payload import encode_json
from lmi.custom.messages import Fault, Part

_Head = tuple[int, str, list[tuple[str, str]]]

_EMPTY = Head()


def head_of(head: Head | None) -> _Head | None:
    """A head as it travels."""
    return None if head is None else (head.status, head.reason, list(head.headers))


def whole(call_id: int, answer: Whole) -> Part:
    """An answer that is complete."""
    return Part(call_id, answer.body, head_of(answer.head), last=True)


def end(call_id: int, begun: bool, head: Head | None, error: BaseException | None) -> Part:
    """The end of a stream: as it should be, or with an exception.

    begun: whether a part of it was sent; before that, an exception is an answer of its own.
    """
    if error is None:
        return Part(call_id, b"", None if begun else head_of(head or _EMPTY), last=True)
    if not begun:
        return whole(call_id, failure(error))
    kind = "memory" if is_out_of_memory(error) else "engine"
    return Part(call_id, last=True, fault=Fault(kind, str(error) or type(error).__name__))


def fault_of(call_id: int, chunk: Chunk, begun: bool) -> Part:
    """The end of a stream whose handler says itself that it failed."""
    error = chunk.error or "the handler failed"
    if begun:
        return Part(call_id, last=True, fault=Fault("engine", error))
    head = chunk.head or Head(424)
    return whole(call_id, Whole(head, encode_json({"code": head.status, "error": error})))


def cancelled(call_id: int) -> Part:
    """The end of a call that nobody waits for."""
    return Part(call_id, last=True, fault=Fault("request", "the client left"))
