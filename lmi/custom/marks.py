"""The functions of a model.py that carry a mark (see `lmi.custom.api.decorators`)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from lmi.custom.loading import MODEL_FILE, load_module

log = logging.getLogger("lmi.custom")

Function = Callable[..., Any]

MARKS = ("input_formatter", "output_formatter", "prediction_handler", "init_handler")


def marked(module: ModuleType) -> dict[str, Function]:
    """A module's marked functions by mark. Of several with one mark, the first by name."""
    found: dict[str, Function] = {}
    for name in sorted(vars(module)):
        value = getattr(module, name)
        if not callable(value):
            continue
        for mark in MARKS:
            if getattr(value, f"is_{mark}", False) is not True:
                continue
            if mark in found and found[mark] is not value:
                log.warning(
                    "%s: @%s marks %s and %s: only the first is used",
                    getattr(module, "__file__", module.__name__),
                    mark,
                    found[mark].__name__,
                    name,
                )
            found.setdefault(mark, value)
    return found


def for_stock(folder: Path, module: ModuleType) -> dict[str, Function]:
    """The formatters of a folder's model.py, where its handler is another module's.

    A stock handler gets them in the properties of its initialise call.
    """
    path = folder / MODEL_FILE
    if not path.is_file() or getattr(module, "__file__", None) == str(path.resolve()):
        return {}
    found = marked(load_module(folder, MODEL_FILE))
    return {mark: found[mark] for mark in ("input_formatter", "output_formatter") if mark in found}
