"""What a handler returned, as an answer: whole, or a stream of chunks.

    None             204                     Output           as it says, or its stream
    str              text/plain              dict, list, ...  application/json
    bytes            octets                  pydantic model   application/json
    an iterator, a generator or an asynchronous one: a stream, item by item

Items of a stream are texts or bytes as they are, or objects as lines of JSON. An `Output` among
them is a chunk too: that is how handlers for the model server's asynchronous mode answer, whose
Outputs carry a binary map (`data`, `last`, `code`, `error`).
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, NamedTuple

from lmi.core import Head
from lmi.custom.api.outputs import Output
from lmi.custom.api.payload import encode_json

JSON: Final = "application/json"
JSON_LINES: Final = "application/jsonlines"

_NO_CONTENT: Final = 204
_FAILED: Final = 424
_OUT_OF_MEMORY: Final = 507
_MAX_REASON: Final = 200  # characters of an error's text in a reason phrase


class Chunk(NamedTuple):
    """A piece of an answer. head: None where the stream's first head stands. last: nothing follows.

    error: a text; the chunk is the end then, and the answer's status is in `head`.
    """

    data: bytes
    head: Head | None = None
    last: bool = False
    error: str | None = None


class Whole(NamedTuple):
    """An answer that is there. after: to be called once it has been sent."""

    head: Head
    body: bytes
    after: Callable[[], object] | None = None


class Stream(NamedTuple):
    """An answer that comes. head: None where the first item decides. encode: an item's chunk."""

    items: Iterator[Any] | AsyncIterator[Any]
    encode: Callable[[Any], Chunk]
    head: Head | None = None
    after: Callable[[], object] | None = None


def interpret(result: Any) -> Whole | Stream:
    """The answer that a handler's result stands for. Raises TypeError for what none does."""
    if result is None:
        return Whole(Head(_NO_CONTENT, "No content"), b"")
    if isinstance(result, Output):
        return _output(result)
    if isinstance(result, str):
        return Whole(_typed("text/plain; charset=utf-8"), result.encode())
    if isinstance(result, bytes | bytearray | memoryview):
        return Whole(_typed("application/octet-stream"), bytes(result))
    if isinstance(result, AsyncIterator | Iterator):
        return Stream(result, item)
    return Whole(_typed(JSON), encode_json(result))


def _output(output: Output) -> Whole | Stream:
    head = _head(output)
    after = output.execute_finalize if output.finalize_function is not None else None
    if output.stream_content is not None:
        return Stream(output.stream_content, lambda it: Chunk(output.stream_chunk(it)), head, after)
    chunk = _mapped(output, head)
    if chunk is not None:
        return Whole(chunk.head or head, _error_body(chunk) or chunk.data, after)
    return Whole(head, _body(output), after)


def item(value: Any) -> Chunk:
    """A stream's item as a chunk."""
    if isinstance(value, Output):
        head = _head(value)
        return _mapped(value, head) or Chunk(_body(value), head)
    if isinstance(value, str):
        return Chunk(value.encode(), _typed("text/plain; charset=utf-8"))
    if isinstance(value, bytes | bytearray | memoryview):
        return Chunk(bytes(value), _typed("application/octet-stream"))
    return Chunk(encode_json(value) + b"\n", _typed(JSON_LINES))


def failure(error: BaseException) -> Whole:
    """A handler's exception as the reference answers it: 424, or 507 where memory ran out."""
    text = str(error) or type(error).__name__
    output = Output()
    if is_out_of_memory(error):
        output.error(text, code=_OUT_OF_MEMORY, message=_line(text))
    else:
        output.error(text, code=_FAILED, message="invoke handler failure")
    return Whole(_head(output), _body(output))


def is_out_of_memory(error: BaseException) -> bool:
    """Python's MemoryError, and by its class's name that of torch and others: none is imported."""
    return any(kind.__name__ in ("MemoryError", "OutOfMemoryError") for kind in type(error).mro())


def _head(output: Output) -> Head:
    headers = {str(name).lower(): str(value) for name, value in output.properties.items()}
    return Head(output.code, _line(str(output.message or "")), tuple(headers.items()))


def _typed(content_type: str) -> Head:
    return Head(headers=(("content-type", content_type),))


def _line(text: str) -> str:
    """A reason phrase: one line, of a bounded length."""
    return " ".join(text.split())[:_MAX_REASON]


def _body(output: Output) -> bytes:
    """The item `data`, else the first."""
    content = output.content
    if content.is_empty():
        return b""
    keys = content.get_keys()
    return _octets(content.value_at(keys.index("data") if "data" in keys else 0))


def _octets(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return encode_json(value)


def _mapped(output: Output, head: Head) -> Chunk | None:
    """The chunk in a binary map, None where the output's content is no such map."""
    content = output.content
    if content.size() != 1:
        return None
    value = content.value_at(0)
    fields = read_map(bytes(value)) if isinstance(value, bytes | bytearray) else None
    if fields is None or "data" not in fields:
        return None
    last = fields.get("last", "").lower() == "true"
    error = fields.get("error") or None
    if "code" in fields or error is not None:
        code = fields.get("code", str(_FAILED))
        head = Head(int(code) if code.isdigit() else _FAILED, head.reason, head.headers)
        return Chunk(fields["data"].encode(), head, True, error or "")
    return Chunk(fields["data"].encode(), head, last)


def _error_body(chunk: Chunk) -> bytes | None:
    if chunk.error is None or chunk.head is None:
        return None
    return encode_json({"code": chunk.head.status, "error": chunk.error})


def read_map(data: bytes) -> dict[str, str] | None:
    """A binary map: a count of 16 bits, then keys and values, each with a length of 32 bits.

    None where the bytes are anything else, up to the last one.
    """
    if len(data) < 2:
        return None
    (count,) = struct.unpack_from(">h", data)
    texts: list[str] = []
    offset = 2
    try:
        for _ in range(2 * count):
            (length,) = struct.unpack_from(">i", data, offset)
            offset += 4
            if length < 0 or offset + length > len(data):
                return None
            texts.append(data[offset : offset + length].decode())
            offset += length
    except (struct.error, UnicodeDecodeError):
        return None
    if count <= 0 or offset != len(data):
        return None
    return dict(zip(texts[::2], texts[1::2], strict=True))
