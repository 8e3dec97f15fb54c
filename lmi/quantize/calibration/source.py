"""Calibration texts from a file, or the set that comes with the package. No torch here."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Final

from lmi.core import ModelError

FIELD: Final = "text"
_OWN: Final = "own.txt"
_BETWEEN: Final = "\n=====\n"  # texts of our own set have empty lines inside
_WANT: Final = 'expected one text per line, or a .jsonl file of objects with "text"'


def texts(source: Path | None) -> list[str]:
    """The texts of a file, in order, without empty ones; None: our own set.

    A file whose name ends with .jsonl holds one JSON object with "text" per line, any other file
    one text per line. Raises ModelError, naming the file and the line, never the text.
    """
    if source is None:
        whole = resources.files(__package__).joinpath(_OWN).read_text(encoding="utf-8")
        return whole.strip().split(_BETWEEN)
    content = _read(source)
    if source.suffix.lower() == ".jsonl":
        found = [
            _text_of(line, f"{source}:{number}")
            for number, line in enumerate(content.split("\n"), 1)
            if line.strip()
        ]
    else:
        found = content.splitlines()
    kept = [text for text in found if text.strip()]
    if not kept:
        raise ModelError(f"calibration data {source} holds no text: {_WANT}")
    return kept


def _read(source: Path) -> str:
    try:
        return source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(
            f"calibration data {source} is not UTF-8 (at byte {error.start}): {_WANT}, in UTF-8"
        ) from error
    except OSError as error:
        raise ModelError(
            f"calibration data {source} can't be read ({error.strerror}): {_WANT}"
        ) from error


def _text_of(line: str, where: str) -> str:
    try:
        value = json.loads(line)
    except ValueError as error:
        # The library's message quotes nothing of the line but the place of the fault.
        raise ModelError(f"calibration data {where}: not JSON ({error}): {_WANT}") from error
    text = value.get(FIELD) if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise ModelError(f'calibration data {where}: no object with a string "text": {_WANT}')
    return text
