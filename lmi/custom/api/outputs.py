"""An answer as a handler gives it."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from typing import Any

from lmi.custom.api import framing
from lmi.custom.api.pair_list import PairList
from lmi.custom.api.payload import Buffer, encode_json

log = logging.getLogger(__name__)

StreamFormatter = Callable[[Any], Any]


def as_outputs(item: Any) -> bytes:
    """A stream's item as its line: `{"outputs": item}`."""
    return encode_json({"outputs": item}) + b"\n"


class Output:
    """An answer: status, headers (`properties`) and content.

    code: the HTTP status. message: its reason, one line. content: the body is the item `data`, else
    the first. stream_content: an iterator, also an asynchronous one, whose items are sent as they
    come; then there is no other content. stream_output_formatter: makes an item bytes or text, None
    where it is that. finalize_function: called with finalize_args once the answer was sent.
    """

    def __init__(self, code: int = 200, message: str = "OK") -> None:
        self.code = code
        self.message = message
        self.properties: dict[str, Any] = {}
        self.content = PairList()
        self.stream_content: Any = None
        self.stream_output_formatter: StreamFormatter | None = None
        self.finalize_function: Callable[..., object] | None = None
        self.finalize_args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        """Without the content: only its keys and types."""
        items = zip(self.content.keys, self.content.values, strict=True)
        content = [f"{key}: {type(value).__name__}" for key, value in items]
        return f"Output({self.code}, {self.message!r}, {self.properties}, content={content})"

    __repr__ = __str__

    def set_code(self, code: int) -> Output:
        """Set the HTTP status."""
        self.code = code
        return self

    def set_message(self, message: str) -> Output:
        """Set the HTTP reason."""
        self.message = message
        return self

    def error(self, error: str, code: int = 424, message: str = "invoke handler failure") -> Output:
        """Make this the answer to a request that failed, with a JSON body that says why."""
        self.code = code
        self.message = message
        self.add_property("content-type", "application/json")
        return self.add_as_json({"code": code, "message": message, "error": error})

    def add_property(self, key: str, val: Any) -> Output:
        """Set a header."""
        self.properties[key] = val
        return self

    def get_property(self, key: str) -> Any:
        """A header that was set by exactly this name, or None."""
        return self.properties.get(key)

    def get_properties(self) -> dict[str, Any]:
        """All headers."""
        return self.properties

    def add(self, value: Any, key: str | None = None, batch_index: int | None = None) -> Output:
        """Add an item: text and bytes as they are, anything else as JSON.

        batch_index: the request of a dynamic batch that this answers.
        """
        if isinstance(value, str):
            value = bytearray(value.encode())
        elif isinstance(value, bytes | memoryview):
            value = bytearray(value)
        elif not isinstance(value, bytearray):
            return self.add_as_json(value, key, batch_index)
        return self._add(value, key, batch_index)

    def add_as_json(
        self, val: Any, key: str | None = None, batch_index: int | None = None
    ) -> Output:
        """Add an item as JSON; values and arrays of numpy and dates are converted.

        Raises ValueError for NaN and the infinities, TypeError for what JSON can't hold.
        """
        return self._add(bytearray(encode_json(val)), key, batch_index)

    def add_as_numpy(
        self, np_list: Sequence[Any], key: str | None = None, batch_index: int | None = None
    ) -> Output:
        """Add a list of arrays as an ndlist."""
        from lmi.custom.api.ndlist import to_nd_list

        return self._add(to_nd_list(np_list), key, batch_index)

    def add_as_npz(
        self, np_list: Sequence[Any], key: str | None = None, batch_index: int | None = None
    ) -> Output:
        """Add a list of arrays as an npz."""
        from lmi.custom.api.ndlist import to_npz

        return self._add(bytearray(to_npz(np_list)), key, batch_index)

    def add_stream_content(
        self,
        stream_content: Iterable[Any] | AsyncIterable[Any],
        output_formatter: StreamFormatter | None = as_outputs,
    ) -> Output:
        """Answer with a stream: an item is sent as soon as the iterator gives it.

        output_formatter: makes each item bytes or text; None where the items are.
        """
        if isinstance(stream_content, AsyncIterable):
            self.stream_content = aiter(stream_content)
        else:
            self.stream_content = iter(stream_content)
        self.stream_output_formatter = output_formatter
        return self

    def finalize(self, finalize_function: Callable[..., object], *args: Any) -> Output:
        """Have something called once the answer was sent."""
        self.finalize_function = finalize_function
        self.finalize_args = args
        return self

    def execute_finalize(self) -> object:
        """Call it."""
        if self.finalize_function is None:
            return None
        return self.finalize_function(*self.finalize_args)

    def stream_chunk(self, item: Any) -> bytes:
        """An item of `stream_content` as the bytes to send; raises TypeError where it has none."""
        if self.stream_output_formatter is not None:
            item = self.stream_output_formatter(item)
        if isinstance(item, str):
            return item.encode()
        if isinstance(item, Buffer):
            return bytes(item)
        raise TypeError(f"a stream's item is a {type(item).__name__}: expected text or bytes")

    @staticmethod
    def binary_encode(pairs: Mapping[str, Any]) -> bytearray:
        """A map of texts as DJL's bytes: a count, then each key and value; values through str."""
        out = bytearray(struct.pack(">h", len(pairs)))
        for key, value in pairs.items():
            Output.write_utf8(out, key)
            Output.write_utf8(out, str(value))
        return out

    @staticmethod
    def write_utf8(msg: bytearray, val: str | None) -> None:
        """Append a text to a message, its length before it."""
        msg += framing.text(val)

    @staticmethod
    def _encode_json(val: Any) -> bytes:
        return encode_json(val)

    def encode(self) -> bytearray:
        """This as DJL's bytes; a stream's are only its head."""
        out = bytearray(framing.short(self.code) + framing.text(self.message))
        out += framing.short(len(self.properties))
        for key, value in self.properties.items():
            out += framing.text(key) + framing.text(str(value))
        if self.stream_content is not None:
            return out + framing.short(framing.STREAM)
        out += framing.short(self.content.size())
        for item, value in zip(self.content.keys, self.content.values, strict=True):
            out += framing.text(item) + framing.blob(value)
        return out

    def send(self, sock: socket.socket) -> None:
        """Send this over a socket, a stream to its end."""
        sock.sendall(self.encode())
        if self.stream_content is not None:
            framing.send_stream(sock, map(self.stream_chunk, self.stream_content))

    def _add(self, value: bytearray, key: object, batch_index: int | None) -> Output:
        if key is not None and not isinstance(key, str):
            log.warning("an output's key should be text, not %s", type(key).__name__)
            key = str(key)
        if batch_index is not None:
            key = f"batch_{batch_index}.{key or 'data'}"
        self.content.add(key, value)
        return self
