"""Incremental decoding: token ids in one by one, text out as soon as it is certain.

The rule: the joined pieces are the tokenizer's decoding of the visible ids, in the context of the
prompt: the leading space of the first word stays if something visible comes before it, and a
character that the prompt left unfinished is finished (if it is not, the prompt's bytes show
nowhere). Only the bytes of an unfinished character are
held back (three at most). A push costs the same however long the text is.

One difference from decoding the whole is wanted. Byte fallback decodes a run of byte tokens all or
nothing: one wrong byte turns the whole run into U+FFFD, and also what a client has already read.
Here a character that is complete is out at once (a newline is a byte token in many vocabularies,
and a stop string must be seen when it ends), and only bytes that belong to no character become
U+FFFD, one each. Text that a tokenizer made has no such bytes.
"""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from lmi.text.pieces import PieceTable

_UNKNOWN: Final = "\ufffd"
# Visible prompt tokens that can matter to what follows: an unfinished character has at most three
# bytes.
_CONTEXT_TOKENS: Final = 4
# Tokens that the window algorithm decodes again each time, before the new ones.
_WINDOW_TOKENS: Final = 6


class Detokenizer(Protocol):
    """The text of one choice."""

    def push(self, token_id: int, /) -> str:
        """The text that is certain now that this token came; empty for ids without a token."""

    def begin(self) -> None:
        """The tokens so far were the prompt's: their text is none of the answer's."""

    def flush(self) -> str:
        """What was held back, as text; call it once, at the end."""


class ByteStreamDetokenizer:
    """For byte-level vocabularies: the tokens' bytes are one UTF-8 stream."""

    __slots__ = ("_lent", "_pending", "_pieces")

    def __init__(self, pieces: PieceTable) -> None:
        self._pieces = pieces
        self._pending = b""
        self._lent = 0  # leading bytes of `_pending` that are the prompt's

    def push(self, token_id: int, /) -> str:
        piece = self._pieces[token_id]
        if not self._pending and piece.__class__ is str:
            return piece
        raw = self._pending + (piece.encode() if isinstance(piece, str) else piece)
        if self._lent:
            raw = self._settled(raw)
        text, used = utf_8_decode(raw, "replace", False)
        self._pending = raw[used:]
        return text

    def _settled(self, raw: bytes) -> bytes:
        """Drop the prompt's bytes unless what follows finishes their character, or still may."""
        try:
            _, used = utf_8_decode(raw, "strict", False)
        except UnicodeDecodeError as error:
            used = error.start
            if not used:
                raw = raw[self._lent :]
                used = 1
        if used:
            self._lent = 0
        return raw

    def begin(self) -> None:
        self._lent = len(self._pending)

    def flush(self) -> str:
        text = self._pending[self._lent :].decode(errors="replace")
        self._pending = b""
        self._lent = 0
        return text


class PieceDetokenizer:
    """For vocabularies of text pieces, with or without byte tokens."""

    __slots__ = ("_inner", "_lent", "_pending", "_pieces")

    def __init__(self, inner: PieceTable, first: PieceTable) -> None:
        self._inner = inner
        self._pieces = first  # the table for the next token
        self._pending = b""
        self._lent = 0  # leading bytes of `_pending` that are the prompt's

    def push(self, token_id: int, /) -> str:
        piece = self._pieces[token_id]
        if not self._pending and piece.__class__ is str:
            if piece or self._inner[token_id]:
                self._pieces = self._inner
            return piece
        self._pieces = self._inner
        if isinstance(piece, str):
            return self.flush() + piece
        return self._push_byte(piece)

    def _push_byte(self, byte: bytes) -> str:
        raw = self._pending + byte
        try:
            text, used = utf_8_decode(raw, "strict", False)
        except UnicodeDecodeError:
            if not self._pending:  # this byte begins no character
                return _UNKNOWN
            return self.flush() + self._push_byte(byte)
        self._pending = raw[used:]
        if used:
            self._lent = 0
        return text

    def begin(self) -> None:
        self._lent = len(self._pending)

    def flush(self) -> str:
        text = _UNKNOWN * (len(self._pending) - self._lent)
        self._pending = b""
        self._lent = 0
        return text


class WindowDetokenizer:
    """For any other decoder: what the last few tokens say with the new one and did not say before.

    Exact as far as a token's text depends on the tokens of the window only.
    """

    __slots__ = ("_decode", "_ids", "_known", "_lent")

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._known = ""  # the text of these ids that is out
        self._lent = False  # whether an open character of the prompt follows it

    def push(self, token_id: int, /) -> str:
        self._ids.append(token_id)
        text = self._decode(self._ids)
        if self._lent and text == self._known + _UNKNOWN:
            return ""
        # One U+FFFD at the end may be a character that is still open.
        return self._release(text, text.removesuffix(_UNKNOWN))

    def begin(self) -> None:
        text = self._decode(self._ids)
        self._known = text.removesuffix(_UNKNOWN)
        self._lent = text != self._known

    def flush(self) -> str:
        text = self._decode(self._ids)
        return self._release(text, text)

    def _release(self, text: str, certain: str) -> str:
        if self._lent:
            self._lent = False
            if text.startswith(self._known + _UNKNOWN):  # it was never finished
                self._known += _UNKNOWN
        fresh = certain[len(self._known) :]
        if len(self._ids) > _WINDOW_TOKENS:
            self._ids = self._ids[-_WINDOW_TOKENS:]
            certain = self._decode(self._ids).removesuffix(_UNKNOWN)
        self._known = certain
        return fresh


def prime(detokenizer: Detokenizer, prompt: Sequence[int], hidden: frozenset[int]) -> None:
    """Let a detokenizer know what comes before: the prompt's last visible tokens.

    hidden: ids that are not shown.
    """
    context: list[int] = []
    for token_id in reversed(prompt):
        if token_id not in hidden:
            context.append(token_id)
            if len(context) == _CONTEXT_TOKENS:
                break
    for token_id in reversed(context):
        detokenizer.push(token_id)
    detokenizer.begin()
