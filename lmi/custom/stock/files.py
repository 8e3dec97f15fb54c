"""A model's file in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lmi.core import ModelError


def find_model_file(model_dir: str | Path, extensions: Sequence[str]) -> str | None:
    """The path of the one file with such an extension, of several that of the one named `model`.

    extensions: with or without the dot. None where there is no such file; raises ModelError where
    there is no way to tell.
    """
    suffixes = {f".{each.removeprefix('.')}" for each in extensions}
    files = sorted(
        each for each in Path(model_dir).iterdir() if each.suffix in suffixes and each.is_file()
    )
    named = [each for each in files if each.stem == "model"]
    found = named if len(files) > 1 and named else files
    if len(found) > 1:
        shown = ", ".join(each.name for each in found)
        raise ModelError(f"{model_dir}: expected one file of {sorted(suffixes)}, found {shown}")
    return str(found[0]) if found else None
