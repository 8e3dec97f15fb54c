"""The loader of vLLM's card: from the options to an engine in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lmi.config.vllm_arguments import arguments, installed_release
from lmi.core import OPTIONAL, Adapter, ConfigError, Engine, ModelError, RequestError
from lmi.dist.adapter_process import AdapterProcessEngine
from lmi.dist.foreign import ForeignConfig
from lmi.dist.process import ProcessEngine
from lmi.engines.bound import BoundSpec, Progress
from lmi.engines.devices import visible_gpus
from lmi.engines.vllm.arguments import command_line, values
from lmi.engines.vllm.environment import worker_variables

CORE: Final = "lmi.engines.vllm.core:make_core"
# Between looks whether an adapter is loaded: its answer brings no delta that would end one sooner.
_LOOK_SECONDS: Final = 0.02


def load(bound: BoundSpec, progress: Progress) -> Engine:
    """A model in vLLM. Raises ConfigError, ModelError, OutOfMemory or EngineDead."""
    told, honours = config(bound), frozenset(OPTIONAL)
    if "adapters" not in told.arguments:
        return ProcessEngine.load_foreign(told, CORE, progress, honours=honours)
    engine = AdapterProcessEngine.load_foreign(told, CORE, progress, honours=honours)
    try:
        register_all(engine, adapters_of(bound), progress)
    except BaseException:
        engine.close()
        raise
    return engine


def config(bound: BoundSpec) -> ForeignConfig:
    """What the worker is told. Raises ConfigError."""
    spec, folder = bound.spec, bound.path
    assert folder is not None, "the card of vllm needs a model"
    degree = spec.tensor_parallel_degree
    ranks = max(1, visible_gpus()) if degree == "max" else degree or 1
    known = arguments(installed_release())
    chosen = values(bound, known, ranks)
    told: dict[str, Any] = {"words": command_line(bound, known, ranks)}
    if chosen.get("enable_lora"):
        told["adapters"] = {
            "base": str(folder),
            "slots": int(chosen["max_loras"]),
            "max_rank": int(chosen["max_lora_rank"]),
        }
    return ForeignConfig(
        name="vLLM",
        tokenizer=_tokenizer(str(chosen.get("tokenizer", folder))),
        arguments=told,
        environment=worker_variables(spec, folder, chosen, os.environ),
        trust_remote_code=spec.trust_remote_code,
    )


def adapters_of(bound: BoundSpec) -> list[Adapter]:
    """The adapters that stand beside the configuration or the model. Raises ConfigError."""
    named = str(bound.spec.options.get("adapters", "adapters"))
    found: dict[str, Adapter] = {}
    for home in (bound.spec.folder, bound.path):
        if home is None or not (folder := home / named).is_dir():
            continue
        if not folder.resolve().is_relative_to(home.resolve()):
            want = "expected a folder inside the model's"
            raise ConfigError("option.adapters", named, "the configuration", want)
        for each in sorted(folder.iterdir()):
            if each.is_dir():
                found.setdefault(each.name, Adapter(each.name, each))
    return list(found.values())


def register_all(
    engine: AdapterProcessEngine, adapters: Sequence[Adapter], progress: Progress
) -> None:
    """Register adapters before anybody else uses the engine. Raises ModelError for a bad one."""
    for done, adapter in enumerate(adapters):
        progress("loading adapters", done, len(adapters))
        answer = engine.register_adapter(adapter)
        while not answer.done():
            engine.poll(_LOOK_SECONDS)
        try:
            answer.result()
        except RequestError as error:
            raise ModelError(str(error)) from error


def _tokenizer(named: str) -> Path:
    folder = Path(named)
    if not folder.is_dir():
        want = "expected a folder: the tokenizer is read by the server too"
        raise ConfigError("option.tokenizer", named, "the configuration", want)
    return folder
