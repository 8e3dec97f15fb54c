"""Read a tokenizer from a model's folder.

tokenizer.json holds nearly everything, also whether BOS and EOS are added: like transformers
(5.19), we do not look at `add_bos_token` where that file exists. What transformers lays over it
from tokenizer_config.json and special_tokens_map.json is done here too, so that the ids are the
same without importing it: tokens that the file lacks, which tokens are special, `add_prefix_space`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import tokenizers
from tokenizers import AddedToken, pre_tokenizers

from lmi.core import ModelError
from lmi.text.pieces import pieces_of
from lmi.text.tokenizer import Codec

_NAMED: Final = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
# Classes that take tokenizer.json as it is; the others set add_prefix_space themselves.
_PLAIN_CLASSES: Final = frozenset({"PreTrainedTokenizerFast", "TokenizersBackend", None})
_FLAGS: Final = ("lstrip", "rstrip", "single_word", "normalized", "special")


def load_codec(folder: Path, *, trust_remote_code: bool) -> Codec:
    """The folder's tokenizer. Raises ModelError."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return _load_with_transformers(folder, trust_remote_code=trust_remote_code)
    text = _read(path)
    try:
        tokenizer = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises nothing narrower
        raise ModelError(f"{path}: not a tokenizer that can be read: {error}") from error
    config = _read_json(folder / "special_tokens_map.json") | _read_json(
        folder / "tokenizer_config.json"
    )
    _overlay(tokenizer, config)
    return codec_of(tokenizer, config)


def codec_of(tokenizer: tokenizers.Tokenizer, config: dict[str, Any]) -> Codec:
    """A codec over a tokenizer of the `tokenizers` library.

    config: what tokenizer_config.json says.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = bool(config.get("split_special_tokens", False))
    added = tokenizer.get_added_tokens_decoder()

    def encode(text: str, add_special_tokens: bool) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(ids: Sequence[int], skip_special_tokens: bool) -> str:
        return tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    return Codec(
        encode=encode,
        decode=decode,
        token=tokenizer.id_to_token,
        special=frozenset(token_id for token_id, token in added.items() if token.special),
        size=max(tokenizer.get_vocab_size(), 1 + max(added, default=-1)),
        pieces=pieces_of(tokenizer),
        bos_id=_named_id(tokenizer, config, "bos_token"),
        eos_id=_named_id(tokenizer, config, "eos_token"),
    )


def _overlay(tokenizer: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
    listed = sorted(config.get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0]))
    tokenizer.add_tokens([_added(token) for _, token in listed])
    named = [config[name] for name in _NAMED if config.get(name)]
    named += config.get("additional_special_tokens") or []
    extra = config.get("extra_special_tokens") or []
    named += extra.values() if isinstance(extra, dict) else extra
    tokenizer.add_special_tokens([_added(token, special=True) for token in named])
    prefix = config.get("add_prefix_space")
    before = tokenizer.pre_tokenizer
    if (
        isinstance(prefix, bool)
        and config.get("tokenizer_class") not in _PLAIN_CLASSES
        and isinstance(before, pre_tokenizers.ByteLevel)
    ):
        before.add_prefix_space = prefix


def _added(token: str | dict[str, Any], *, special: bool | None = None) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=True, normalized=False)
    flags = {flag: bool(token[flag]) for flag in _FLAGS if flag in token}
    if special is not None:
        flags["special"] = special
    return AddedToken(token["content"], **flags)


def _named_id(tokenizer: tokenizers.Tokenizer, config: dict[str, Any], name: str) -> int | None:
    token = config.get(name)
    return tokenizer.token_to_id(_content(token)) if token else None


def _content(token: str | dict[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: can't be read: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read(path))
    except ValueError as error:
        raise ModelError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return value


def _load_with_transformers(folder: Path, *, trust_remote_code: bool) -> Codec:
    from transformers import AutoTokenizer

    try:
        loaded: Any = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder}: no tokenizer can be read: expected tokenizer.json, or files that"
            f" transformers makes a tokenizer of ({error})"
        ) from error
    if len(loaded) <= len(loaded.all_special_ids):  # what it makes of a folder with no vocabulary
        raise ModelError(
            f"{folder}: no vocabulary found: expected tokenizer.json, or the files that"
            f" {type(loaded).__name__} reads"
        )
    backend = getattr(loaded, "backend_tokenizer", None)
    if isinstance(backend, tokenizers.Tokenizer):
        names = {name: str(token) for name in _NAMED if (token := getattr(loaded, name, None))}
        return codec_of(backend, names)
    return _codec_of_python(loaded)


def _codec_of_python(loaded: Any) -> Codec:
    """A codec over a tokenizer that transformers runs in Python."""

    def encode(text: str, add_special_tokens: bool) -> list[int]:
        ids: list[int] = loaded.encode(text, add_special_tokens=add_special_tokens)
        return ids

    def decode(ids: Sequence[int], skip_special_tokens: bool) -> str:
        text: str = loaded.decode(
            list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    def token(token_id: int) -> str | None:
        found: str | None = loaded.convert_ids_to_tokens(token_id)
        return found

    return Codec(
        encode=encode,
        decode=decode,
        token=token,
        special=frozenset(loaded.all_special_ids),
        size=len(loaded),
        pieces=None,
        bos_id=loaded.bos_token_id,
        eos_id=loaded.eos_token_id,
    )
