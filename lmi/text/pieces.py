"""What one token adds to a text: a table from token id to piece, read off the tokenizer's decoder.

A decoder of the `tokenizers` library maps a list of tokens to a text. For those that language
models use, that map is a concatenation: every token has a piece of its own, which differs only
where the token comes first in the text (a leading space is dropped there). A piece is a `str`, or
`bytes` where a token holds a part of a character. Pieces are worked out on first use, by the
library's own decoder wherever it can be asked, so that nothing is built at start.

A decoder of another kind (`</w>` suffixes, CTC) has no such table: `pieces_of` answers None and the
window algorithm of `lmi.text.detokenize` takes over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import tokenizers

Piece: TypeAlias = str | bytes

# A token that every decoder below leaves as it is: it stands for "something came before".
_ANCHOR: Final = "a"
_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Decoders that work token by token. ByteFallback works on runs of byte tokens: those become `bytes`
# pieces.
_PER_TOKEN: Final = frozenset({"Replace", "ByteFallback", "Metaspace", "WordPiece", "Strip"})


class PieceTable(dict[int, Piece]):
    """Token id to piece, filled on first use. Ids without a token have the empty piece."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[int], Piece]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, token_id: int) -> Piece:
        piece = self[token_id] = self._make(token_id)
        return piece


@dataclass(frozen=True, slots=True)
class Pieces:
    """The two tables of a tokenizer.

    inner: pieces after something visible. first: pieces at the very start of a text. bytes_join:
    True where bytes of neighbouring tokens are one UTF-8 stream (byte-level BPE: an undecodable
    stretch is one U+FFFD), False where only byte tokens join (byte fallback: each undecodable byte
    is one U+FFFD).
    """

    inner: PieceTable
    first: PieceTable
    bytes_join: bool


def pieces_of(tokenizer: tokenizers.Tokenizer) -> Pieces | None:
    """The piece tables of a tokenizer, or None where its decoder is not a concatenation."""
    decoder = tokenizer.decoder
    described = {"decoders": []} if decoder is None else json.loads(decoder.__getstate__())
    stages: list[dict[str, Any]] = described.get("decoders", [described])
    kinds = [stage["type"] for stage in stages]
    if kinds in (["ByteLevel"], ["ByteLevel", "Fuse"]):
        table = PieceTable(_byte_level(tokenizer.id_to_token))
        return Pieces(table, table, bytes_join=True)
    if not _is_concatenation(stages):
        return None
    decode: Callable[[list[str]], str] = " ".join if decoder is None else decoder.decode
    has_bytes = "ByteFallback" in kinds
    return Pieces(
        PieceTable(_asked(tokenizer.id_to_token, decode, [_ANCHOR], has_bytes)),
        PieceTable(_asked(tokenizer.id_to_token, decode, [], has_bytes)),
        bytes_join=False,
    )


def _is_concatenation(stages: list[dict[str, Any]]) -> bool:
    """Tell whether each token's share of the text depends only on whether it comes first."""
    kinds = [stage["type"] for stage in stages]
    if "Fuse" in kinds:
        fuse = kinds.index("Fuse")
        after = stages[fuse + 1 :]
        if any(stage["type"] != "Strip" or stage["stop"] for stage in after):
            return False
        kinds = kinds[:fuse]
    return _PER_TOKEN.issuperset(kinds)


def _asked(
    token_of: Callable[[int], str | None],
    decode: Callable[[list[str]], str],
    before: list[str],
    has_bytes: bool,
) -> Callable[[int], Piece]:
    skip = len(decode(before)) if before else 0

    def make(token_id: int) -> Piece:
        token = token_of(token_id)
        if token is None:
            return ""
        byte = _BYTE_TOKEN.fullmatch(token) if has_bytes else None
        if byte is not None and (value := int(byte[1], 16)) >= 0x80:
            return bytes([value])
        return decode([*before, token])[skip:]

    return make


def _byte_level(token_of: Callable[[int], str | None]) -> Callable[[int], Piece]:
    to_byte = _byte_level_alphabet()

    def make(token_id: int) -> Piece:
        token = token_of(token_id)
        if token is None:
            return ""
        try:
            raw = bytes([to_byte[char] for char in token])
        except KeyError:  # an added token outside the alphabet stands for itself
            return token
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw

    return make


def _byte_level_alphabet() -> dict[str, int]:
    """The characters by which byte-level BPE writes the 256 bytes (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + place): byte for place, byte in enumerate(others)})
    return alphabet
