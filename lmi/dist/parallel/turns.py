"""What rank 0 tells its followers: a turn, and the ids that it sampled in it.

One message before each step and one after its sampling, in msgpack: nobody can be made to run
anything. A turn without news is three bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from zlib import crc32

import msgspec
from msgspec import Struct

from lmi.core import EngineDead
from lmi.dist.wire import Cancel, Close, Submit

Event = Submit | Cancel | Close
Row = tuple[int, int]
"""Names a choice that a token is sampled for: its request's id and its number."""


class Turn(Struct, frozen=True, array_like=True, gc=False):
    """Apply these events in their order; then, if `step`, step. Without either it says: I live."""

    step: bool
    events: Sequence[Event] = ()


class Choices(Struct, frozen=True, array_like=True, gc=False):
    """What rank 0 sampled. rows: a digest of whom it sampled for, to see that all ranks agree.

    tokens: None where the logits were not finite.
    """

    rows: int
    tokens: list[int | None]


_encoder: Final = msgspec.msgpack.Encoder()
_turn_decoder: Final = msgspec.msgpack.Decoder(Turn)
_choices_decoder: Final = msgspec.msgpack.Decoder(Choices)

encode_turn: Final = _encoder.encode
decode_turn: Final = _turn_decoder.decode


def encode_choices(rows: Sequence[Row], tokens: list[int | None]) -> bytes:
    """The tokens of these rows."""
    return _encoder.encode(Choices(_digest(rows), tokens))


def decode_choices(data: bytes, rows: Sequence[Row]) -> list[int | None]:
    """The tokens that rank 0 sampled for these rows.

    Raises EngineDead where rank 0 sampled for others: the ranks have come apart.
    """
    choices = _choices_decoder.decode(data)
    if choices.rows != _digest(rows) or len(choices.tokens) != len(rows):
        raise EngineDead(
            f"rank 0 sampled for {len(choices.tokens)} choices that are not the {len(rows)} of "
            "this rank: the two no longer compute the same"
        )
    return choices.tokens


def _digest(rows: Sequence[Row]) -> int:
    return crc32(repr(rows).encode())
