"""What rank 0 tells its followers: the turn's events, and the ids that it sampled.

One message before each step and one after its sampling, in msgpack: nobody can be made to run
anything. A turn without news is one byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from zlib import crc32

import msgspec
from msgspec import Struct

from lmi.core import EngineDead
from lmi.dist.wire import Cancel, Close, Submit

Event = Submit | Cancel | Close


class Choices(Struct, frozen=True, array_like=True, gc=False):
    """What rank 0 sampled. rows: a digest of whom it sampled for, to see that all ranks agree.

    tokens: None where the logits were not finite.
    """

    rows: int
    tokens: list[int | None]


_encoder: Final = msgspec.msgpack.Encoder()
_turn_decoder: Final = msgspec.msgpack.Decoder(list[Event])
_choices_decoder: Final = msgspec.msgpack.Decoder(Choices)


def encode_turn(events: Sequence[Event]) -> bytes:
    """The events of one turn, in their order."""
    return _encoder.encode(events)


decode_turn: Final = _turn_decoder.decode


def encode_choices(rows: Iterable[tuple[int, int]], tokens: list[int | None]) -> bytes:
    """The tokens of these rows; a row is named by its request's id and the choice."""
    return _encoder.encode(Choices(_digest(rows), tokens))


def decode_choices(data: bytes, rows: Sequence[tuple[int, int]]) -> list[int | None]:
    """The tokens that rank 0 sampled for these rows.

    Raises EngineDead where rank 0 sampled for others: the ranks have come apart.
    """
    choices = _choices_decoder.decode(data)
    if choices.rows != _digest(rows) or len(choices.tokens) != len(rows):
        raise EngineDead(
            f"this rank wants the tokens of {len(rows)} choices, rank 0 sampled "
            f"{len(choices.tokens)} of others: they no longer compute the same"
        )
    return choices.tokens


def _digest(rows: Iterable[tuple[int, int]]) -> int:
    return crc32(repr(list(rows)).encode())
