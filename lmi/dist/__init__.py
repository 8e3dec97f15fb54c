"""LMI-Dist: continuous batching over a paged KV cache, on transformers' models.

A library of its own: it knows tokens and text, no HTTP and no options. Importing it is cheap; torch
comes with the first engine that is loaded in this process.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmi.dist.config import DistConfig
    from lmi.dist.core import EngineCore
    from lmi.dist.engine import Engine
    from lmi.dist.process import ProcessEngine

__all__ = ["DistConfig", "Engine", "EngineCore", "ProcessEngine"]

_HOMES = {
    "DistConfig": "lmi.dist.config",
    "Engine": "lmi.dist.engine",
    "EngineCore": "lmi.dist.core",
    "ProcessEngine": "lmi.dist.process",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
