"""The option table: every option of LMI 0.25 to 0.36 and our own; a module for each group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import TypeVar

from lmi.config.options import features, generation, handlers, model, requests, server, trtllm
from lmi.config.options.base import ANY, ENGINES, Limit, Option, Use, Verdict
from lmi.config.options.model import FOREIGN_ENGINES

_T = TypeVar("_T")

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

_SCHEDULER, _SCHEDULED = "lmi-dist", "deepspeed"


def _scheduled(option: Option) -> Option:
    """The option with DeepSpeed's part, where none is written down: that of LMI-Dist.

    DeepSpeed's ranks run under LMI-Dist's scheduler, so what that makes of an option, both do.
    """
    if _SCHEDULED in (*option.used, *option.advisory, *option.refused):
        return option
    return replace(
        option,
        used=(*option.used, _SCHEDULED) if _SCHEDULER in option.used else option.used,
        advisory=_copied(option.advisory),
        refused=_copied(option.refused),
        limits=option.limits if _SCHEDULED in option.limits else _copied(option.limits),
    )


def _copied(column: Mapping[str, _T]) -> Mapping[str, _T]:
    return {**column, _SCHEDULED: column[_SCHEDULER]} if _SCHEDULER in column else column


TABLE: tuple[Option, ...] = tuple(
    replace(_scheduled(option), group=group, reader=reader)
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
