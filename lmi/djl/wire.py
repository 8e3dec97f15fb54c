"""What travels between the DJL model server (Java) and a worker (us), and what Java needs.

Java is the client of one stream socket, for the life of the worker. All integers are big-endian and
signed. There is no magic, no version and no length of a whole message. Strings have a length of two
bytes up to 0.26 and of four since 0.27 (`Width`); everything else is the same in all versions.

    request   i16 n, n x (str key, str value);  i16 n, n x (str or null key, i32 size, bytes)
    reply     i16 code, str message;  i16 n, n x (str, str);  i16 n, n x (str key, i32 size, bytes)
    stream    a reply whose last n is -1, then frames: flag 1, i32 length, bytes;  00 00000000
    map       i16 n, n x (str, str): the payload of an item in rolling batch and in async mode

What hangs or kills Java when it is broken (tests/unit/djl/test_rules.py has each by its number):

1. A stream ends with exactly `00 00000000`, alone in its write, when Java has read all before it:
   its decoder leaves the stream's state before the frame is complete.
2. No string of a reply is null: Java's batch thread ends without a word, and the model answers
   nothing any more.
3. Every map has `data`, also an empty one: without it Java sends the text before once more.
4. `code` is decimal, and never comes without `last`: else the request stays in Java's list. (The
   one exception ends a worker on purpose: see `steps`.)
5. The message and a map's `error` are one line: they become HTTP's reason phrase.
6. A rolling batch's reply has as many items as the request said, in the same order, always 200.
7. A batch of nothing (a spurious wake-up in Java) is answered with nothing, and is no initialise.
8. No field is larger than Java's MAX_NETTY_BUFFER_SIZE: it would close the socket. Longer text goes
   in pieces, each of whole characters, because Java decodes each by itself.
9. Every async reply has its `request_tracking_id`, and code 200.
10. A header's value is one line of what HTTP allows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

FIELD_LIMIT: Final = 20 * 1024 * 1024  # bytes; Java's default of MAX_NETTY_BUFFER_SIZE
SHORT_LIMIT: Final = 2**15 - 1  # bytes of a string whose length has 16 bits

TRACKING_ID: Final = "request_tracking_id"
BATCH_SIZE: Final = "batch_size"
RESET: Final = "reset_rollingbatch"


class ProtocolError(Exception):
    """What came can't be a message of Java's; nothing that follows it can be understood."""


class Width(IntEnum):
    """Bytes of a string's length."""

    SHORT = 2
    LONG = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What a message may hold, in bytes: beyond it is garbage, and must not cost memory.

    string: a key or a property's value (HTTP's headers, options). blob: one item; Java itself
    refuses bodies of over 64 MiB unless told otherwise. message: all of it.
    """

    string: int = 1024 * 1024
    blob: int = 512 * 1024 * 1024
    message: int = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """One request of Java's. properties: names as they were written. content: items in order."""

    properties: dict[str, str] = field(default_factory=dict)
    content: tuple[tuple[str | None, bytes], ...] = ()
