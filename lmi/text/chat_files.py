"""Where a model's folder keeps its chat templates and the special tokens that they name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmi.core import ModelError

_TOKENS = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))


def find_templates(folder: Path, override: str | None) -> dict[str, str]:
    """The templates by name; empty where there is none. Raises ModelError.

    override: a file (absolute, or in the folder), or the template itself; else, as in transformers,
    the files `chat_template.jinja` and `additional_chat_templates/*.jinja`, then what
    tokenizer_config.json holds, then `chat_template.json`, which processors had.
    """
    if override is not None:
        return {"default": _given(folder, override)}
    found = {
        path.stem: _text(path)
        for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))
    }
    own = folder / "chat_template.jinja"
    if own.is_file():
        found["default"] = _text(own)
    if found:
        return found
    for name in ("tokenizer_config.json", "chat_template.json"):
        found = _named(folder / name)
        if found:
            return found
    return {}


def special_tokens(folder: Path) -> dict[str, str]:
    """The texts of the special tokens, by the names that templates use."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        values = _object(folder / name)
        for key in _TOKENS:
            text = _token(values.get(key))
            if text is not None:
                found[key] = text
    return found


def _given(folder: Path, override: str) -> str:
    if "{" in override or "\n" in override:
        return override
    path = folder / override
    if not path.is_file():
        raise ModelError(
            f"option.chat_template={override!r}: no such file, and no template either: expected a "
            f"file (absolute, or in {folder}), or a text with {{{{ }}}} or {{% %}}"
        )
    return _text(path)


def _named(path: Path) -> dict[str, str]:
    """The field chat_template of a file: a template, or a list of named ones."""
    value = _object(path).get("chat_template")
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, dict):
        value = [{"name": name, "template": text} for name, text in value.items()]
    if value is None:
        return {}
    if not isinstance(value, list) or not all(map(_is_entry, value)):
        raise ModelError(
            f"{path}: chat_template: expected a text, or a list of objects with name and template"
        )
    return {entry["name"]: entry["template"] for entry in value}


def _is_entry(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(key), str) for key in ("name", "template")
    )


def _object(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8: {error.reason}") from error


def _token(value: object) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
