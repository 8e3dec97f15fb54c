"""The loader of vLLM's card: from the options to an engine in a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

from lmi.config.vllm_arguments import arguments, installed_release
from lmi.core import OPTIONAL, ConfigError, Engine
from lmi.dist.foreign import ForeignConfig
from lmi.dist.process import ProcessEngine
from lmi.engines.bound import BoundSpec, Progress
from lmi.engines.devices import visible_gpus
from lmi.engines.vllm.arguments import command_line, values
from lmi.engines.vllm.environment import worker_variables

CORE = "lmi.engines.vllm.core:make_core"


def load(bound: BoundSpec, progress: Progress) -> Engine:
    """A model in vLLM. Raises ConfigError, ModelError, OutOfMemory or EngineDead."""
    return ProcessEngine.load_foreign(config(bound), CORE, progress, honours=frozenset(OPTIONAL))


def config(bound: BoundSpec) -> ForeignConfig:
    """What the worker is told. Raises ConfigError."""
    spec, folder = bound.spec, bound.path
    assert folder is not None, "the card of vllm needs a model"
    degree = spec.tensor_parallel_degree
    ranks = max(1, visible_gpus()) if degree == "max" else degree or 1
    known = arguments(installed_release())
    chosen = values(bound, known, ranks)
    return ForeignConfig(
        name="vLLM",
        tokenizer=_tokenizer(str(chosen.get("tokenizer", folder))),
        arguments={"words": command_line(bound, known, ranks)},
        environment=worker_variables(spec, folder, chosen, os.environ),
        trust_remote_code=spec.trust_remote_code,
    )


def _tokenizer(named: str) -> Path:
    folder = Path(named)
    if not folder.is_dir():
        want = "expected a folder: the tokenizer is read by the server too"
        raise ConfigError("option.tokenizer", named, "the configuration", want)
    return folder
