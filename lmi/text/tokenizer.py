"""A model's tokenizer, as the folder of the model describes it: text to ids, ids to text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmi.text.detokenize import (
    ByteStreamDetokenizer,
    Detokenizer,
    PieceDetokenizer,
    WindowDetokenizer,
    prime,
)
from lmi.text.pieces import Pieces

_NOTHING: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Codec:
    """What a tokenizer library gives us: `lmi.text.load` makes one of whatever a folder holds.

    encode: text to ids, with the special tokens that the tokenizer adds if asked. decode: ids to
    text, without the special tokens if asked. token: id to token, None for an id without one.
    special: ids of special tokens. size: one more than the largest id. pieces: None where the
    decoder is not a concatenation.
    """

    encode: Callable[[str, bool], list[int]]
    decode: Callable[[Sequence[int], bool], str]
    token: Callable[[int], str | None]
    special: frozenset[int]
    size: int
    pieces: Pieces | None
    bos_id: int | None = None
    eos_id: int | None = None


class Tokenizer:
    """Text to ids and back. Made by `Tokenizer.load`; never changes, may be shared by threads."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._texts: dict[int, str] = {}
        self.special_ids = codec.special
        self.vocab_size = codec.size
        self.bos_id = codec.bos_id
        self.eos_id = codec.eos_id

    @classmethod
    def load(cls, folder: Path, *, trust_remote_code: bool = False) -> Tokenizer:
        """The tokenizer of a model's folder.

        From tokenizer.json and tokenizer_config.json where they exist; else by transformers (slow
        to import), which runs code of the folder only if trust_remote_code. Raises ModelError: none
        there, or a broken one.
        """
        from lmi.text.load import load_codec

        return cls(load_codec(folder, trust_remote_code=trust_remote_code))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of a prompt, with the special tokens that the model's tokenizer adds, or without
        them where the text has them already."""
        return self._codec.encode(text, add_special_tokens)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of ids as a whole; ids without a token have none."""
        return self._codec.decode(ids, skip_special_tokens)

    def token(self, token_id: int) -> str | None:
        """The vocabulary's own spelling of a token (`Ġthe`, `▁the`), None for an id without one."""
        return self._codec.token(token_id)

    def text(self, token_id: int) -> str:
        """A token's text as it stands inside a text, also of special tokens.

        U+FFFD for a part of a character.
        """
        text = self._texts.get(token_id)
        if text is None:
            text = self._texts[token_id] = self._text(token_id)
        return text

    def _text(self, token_id: int) -> str:
        if self._codec.pieces is None:
            return self._codec.decode([token_id], False)
        piece = self._codec.pieces.inner[token_id]
        return piece if isinstance(piece, str) else piece.decode(errors="replace")

    def detokenizer(
        self, prompt: Sequence[int] = (), *, skip_special_tokens: bool = True
    ) -> Detokenizer:
        """An incremental decoder for what follows a prompt.

        Special tokens are decoded like all others: leave them out yourself to skip them
        (`TextStream` does).
        """
        detokenizer = self._fresh()
        prime(detokenizer, prompt, self.special_ids if skip_special_tokens else _NOTHING)
        return detokenizer

    def _fresh(self) -> Detokenizer:
        pieces = self._codec.pieces
        if pieces is None:
            return WindowDetokenizer(lambda ids: self._codec.decode(ids, False))
        if pieces.bytes_join:
            return ByteStreamDetokenizer(pieces.inner)
        return PieceDetokenizer(pieces.inner, pieces.first)
