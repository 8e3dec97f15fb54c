"""Attention adapters for architectures that don't use transformers' attention interface.

Each module has `install(model, positions)`: it replaces the forward of the attention modules by one
that computes the same projections and hands them to `lmi.dist.attention.interface`, and returns the
keyword arguments that the model's own forward then needs. `positions`: keys that a bias by position
must cover. Everything else of the model stays transformers'.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from transformers import PreTrainedModel

Install = Callable[[PreTrainedModel, int], dict[str, Any]]

ADAPTERS: Final = frozenset({"bloom", "codegen", "falcon", "gpt_neo", "gptj", "mpt"})


# The model's own attention that ours is compared with, by model type; eager elsewhere. Falcon's
# eager path adds ALiBi twice (once in the mask, once to the scores); its sdpa path adds it once.
OWN_ATTENTION: Final = {"falcon": "sdpa"}


def adapter_of(model_type: str) -> Install | None:
    """The adapter for a `model_type` of config.json, or None where there is none."""
    if model_type not in ADAPTERS:
        return None
    install: Install = import_module(f"{__name__}.{model_type}").install
    return install
