"""The option table: every option of LMI 0.25 to 0.36 and our own; a module for each group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType

from lmi.config.options import features, generation, handlers, model, requests, server, trtllm
from lmi.config.options.base import ANY, ENGINES, Limit, Option, Use, Verdict
from lmi.config.options.model import FOREIGN_ENGINES

__all__ = [
    "ANY",
    "ENGINES",
    "FOREIGN_ENGINES",
    "TABLE",
    "Limit",
    "Option",
    "Use",
    "Verdict",
    "spellings",
]

TABLE: tuple[Option, ...] = tuple(
    replace(option, group=group, reader=reader)
    for group, reader, options in (
        (model.GROUP, "launcher", model.OPTIONS),
        (requests.GROUP, "server", requests.OPTIONS),
        (generation.GROUP, "launcher", generation.OPTIONS),
        (features.GROUP, "launcher", features.OPTIONS),
        (server.GROUP, "server", server.OPTIONS),
        ("Functions: tasks of transformers, sklearn, XGBoost", "launcher", handlers.FUNCTIONS),
        ("DeepSpeed", "launcher", handlers.DEEPSPEED),
        (trtllm.GROUP, "launcher", trtllm.OPTIONS),
        ("Neuron", "launcher", handlers.NEURONX),
        ("Java engines", "nobody", handlers.JAVA),
        ("Quantising ahead of time", "launcher", handlers.PARTITION),
    )
    for option in options
)


@cache
def spellings() -> Mapping[str, Option]:
    """Every key that means an option: the documented ones and the older spellings."""
    found = {option.key: option for option in TABLE}
    for option in TABLE:
        for alias in option.aliases:
            found.setdefault(alias, option)
    return MappingProxyType(found)
