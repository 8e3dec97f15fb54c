"""The engines: one card each, and one module per library, the only one that imports that library.

A literal table holds ours; others join by the entry-point group `lmi.engines`: what its entry
points load is a card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import cast

from lmi.core import Engine
from lmi.engines.bound import BoundSpec, Progress

__all__ = ["BoundSpec", "EngineCard", "Progress", "cards", "installed", "load"]

Loader = Callable[[BoundSpec, Progress], Engine]


@dataclass(frozen=True, slots=True)
class EngineCard:
    """What the launcher needs to know of an engine before it is imported.

    requires: the modules that must be importable. loader: `module:function` of a `Loader`.
    needs_model: whether the model's files are fetched for it.
    """

    name: str
    summary: str
    requires: tuple[str, ...]
    loader: str
    needs_model: bool = True


OURS = (
    EngineCard(
        name="vllm",
        summary="vLLM, stepped in a process of ours",
        requires=("vllm",),
        loader="lmi.engines.vllm:load",
    ),
    EngineCard(
        name="lmi-dist",
        summary="continuous batching with a paged KV cache, our own library",
        requires=("torch", "transformers"),
        loader="lmi.engines.lmi_dist:load",
    ),
    EngineCard(
        name="deepspeed",
        summary="models divided by DeepSpeed, with LMI-Dist's continuous batching",
        requires=("torch", "transformers", "deepspeed"),
        loader="lmi.engines.deepspeed:load",
    ),
    EngineCard(
        name="echo",
        summary="scripted answers without a model, for tests and load tests",
        requires=(),
        loader="lmi.engines.echo:load",
        needs_model=False,
    ),
)


@cache
def cards() -> Mapping[str, EngineCard]:
    """Every engine known here, installed or not, by name."""
    joined = {card.name: card for card in OURS}
    for point in entry_points(group="lmi.engines"):
        card = cast("EngineCard", point.load())
        joined.setdefault(card.name, card)
    return joined


@cache
def installed() -> frozenset[str]:
    """The names of the engines whose libraries are importable; imports none of them."""
    return frozenset(
        name for name, card in cards().items() if all(find_spec(module) for module in card.requires)
    )


def load(bound: BoundSpec, progress: Progress) -> Engine:
    """Load the engine that `bound` names. Raises ModelError, ConfigError or EngineDead."""
    module, _, function = cards()[bound.spec.engine].loader.partition(":")
    loader = cast("Loader", getattr(import_module(module), function))
    return loader(bound, progress)
