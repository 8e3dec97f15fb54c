"""Bytes that are no messages of Java's, or nearly: for tests and soaks of the decoder."""

from __future__ import annotations

import random

from lmi.djl.decode import Decoder
from lmi.djl.wire import ProtocolError, Width
from tests.support.djl_bytes import request

_NEARLY = [
    request(
        {"handler": "handle", "batch_size": "2"},
        [("batch_000.data", b"x" * 20), ("batch_001.data", b"")],
        width,
    )
    for width in Width
]
_FAVOURITES = (0, 1, 2, 14, 127, 128, 255)  # small counts, and where signs turn


def garbage(draw: random.Random) -> bytes:
    """Random bytes, or a message with some bytes changed."""
    if draw.random() < 0.5:
        return draw.randbytes(draw.randint(1, 60))
    data = bytearray(draw.choice(_NEARLY))
    for _ in range(draw.randint(1, 4)):
        data[draw.randrange(len(data))] = draw.choice(_FAVOURITES)
    return bytes(data)


def parses(data: bytes, cuts: int = 0, draw: random.Random | None = None) -> bool:
    """Whether a fresh decoder takes the bytes, in cuts + 1 pieces; False where it refuses them."""
    decoder = Decoder()
    try:
        for _ in range(cuts):
            size = 0 if draw is None else draw.randint(0, len(data))
            list(decoder.feed(data[:size]))
            data = data[size:]
        list(decoder.feed(data))
    except ProtocolError:
        return False
    return True
