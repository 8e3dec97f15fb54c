"""A sink for the modes that carry text in maps: what an engine released waits here to be sent.

Java decodes each piece by itself, so a character that is not complete waits for its rest.
"""

from __future__ import annotations

from collections.abc import Callable

from lmi.core import Head, LmiError
from lmi.djl import outcome
from lmi.djl.encode import Encoder, whole_characters
from lmi.session import Accepted

_UNTOLD = Head()


class TextAnswer:
    """One request's answer. Sent by `next_map` in as many pieces as Java takes.

    There is something to send where `out` is not empty or `ended` is true. flowed: Java has got
    some of it. head, error: what the session said.
    """

    __slots__ = (
        "_held",
        "_news",
        "_tail",
        "accepted",
        "ended",
        "error",
        "flowed",
        "head",
        "out",
        "prefix",
    )

    def __init__(self, news: Callable[[TextAnswer], None], prefix: bytes = b"") -> None:
        """news: called whenever there is something to send. prefix: for its owner's use."""
        self._news = news
        self._tail = b""
        self._held = bytearray()  # the body of a failure, which comes as a whole
        self.prefix = prefix
        self.accepted: Accepted | None = None
        self.head = _UNTOLD
        self.out = b""
        self.ended = False
        self.error: LmiError | None = None
        self.flowed = False

    def describe(self, head: Head) -> None:
        self.head = head

    def write(self, data: bytes, last: bool) -> None:
        if self.ended:
            return  # it was ended here, for what it said before
        if self._tail or not data.isascii():
            data = self._characters(data, last)
        if last:
            self.ended = True
        if self.head.status >= 300:
            self._held += data
        else:
            self.out = self.out + data if self.out else data
        if self.out or self.ended:
            self._news(self)

    def fail(self, error: LmiError) -> None:
        self.error = error
        self.ended = True
        self._news(self)

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.ended = True
        if self.accepted is not None:
            self.accepted.cancel()

    def next_map(self, encoder: Encoder) -> tuple[bytes, bool]:
        """The next piece as a map, and whether it is the last one.

        Text goes before the map that ends the request where some has flowed already: a reader in
        Java that looks between the mark of the end and the text would miss the text.
        """
        out = self.out
        if len(out) > encoder.max_data:
            size = whole_characters(out, encoder.max_data)
            self.out = out[size:]
            self.flowed = True
            return encoder.data_map(out[:size], last=False), False
        self.out = b""
        if out and (not self.ended or self.flowed):
            self.flowed = True
            return encoder.data_map(out, last=False), False
        if not self.flowed and not out:
            if self.error is not None:
                return encoder.error_map(outcome.status(self.error), str(self.error)), True
            if self.head.status >= 300:
                text = outcome.error_text(self.head, bytes(self._held))
                return encoder.error_map(self.head.status, text), True
        return encoder.data_map(out, last=True), True

    def headers(self) -> list[tuple[str, str]]:
        """What belongs before the first byte."""
        if self.error is not None:
            return outcome.error_headers(self.error)
        return outcome.headers(self.head)

    def _characters(self, data: bytes, last: bool) -> bytes:
        """What of the tail and the data is whole characters; an answer that is no text ends."""
        data = self._tail + data
        whole = whole_characters(data, len(data))
        self._tail = data[whole:]
        data = data[:whole]
        try:
            if last and self._tail:
                self._tail.decode()
            data.decode()
        except UnicodeDecodeError:
            self._refuse()
            return b""
        return data

    def _refuse(self) -> None:
        self.error = outcome.NotText(
            "the answer has bytes that are not UTF-8 text, which the rolling batch and async mode "
            "cannot carry; serve this model with option.rolling_batch=disable and without "
            "option.async_mode"
        )
        self.cancel()
