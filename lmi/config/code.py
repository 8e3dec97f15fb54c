"""What the model's own code is for: it takes the requests itself, or stands beside an engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lmi.config.choose import NAMED
from lmi.config.folder import Folder
from lmi.config.sources import Candidate
from lmi.config.values import merge, text_of

STOCK: Final = "djl_python."
"""What the names of the stock entry points begin with."""

# Functions of a SageMaker script: it needs no `handle`.
_SAGEMAKER: Final = frozenset({"model_fn", "predict_fn"})
_READ: Final = frozenset({"engine", "option.entryPoint", "option.entry_point", "option.handler"})


def takes_requests(known: Iterable[Candidate], folder: Folder | None) -> bool:
    """Whether the model's own code takes the requests: its entry point, or its model.py.

    Beside a stock entry point, and beside an engine that `engine` names outright, a model.py only
    helps: its formatters, and a `handle` that may answer before the engine does.
    """
    values, _ = merge((each for each in known if each.key in _READ), own_code=True)
    entry_point = text_of(values, "option.entryPoint")
    if entry_point is not None:
        return not entry_point.startswith(STOCK)
    if folder is None or not folder.model_py or text_of(values, "engine") in NAMED:
        return False
    handler = text_of(values, "option.handler") or "handle"
    return folder.names is None or not folder.names.isdisjoint(_SAGEMAKER | {handler})
