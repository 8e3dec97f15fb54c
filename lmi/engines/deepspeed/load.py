"""The loader of DeepSpeed's card: from the options to a job of ranks. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from lmi.core import ConfigError, Engine
from lmi.dist.config import DistConfig
from lmi.engines import lmi_dist
from lmi.engines.bound import BoundSpec, Progress
from lmi.engines.deepspeed.settings import Settings, settings
from lmi.engines.devices import visible_gpus

CORE: Final = "lmi.engines.deepspeed.core:load"
NAME: Final = "DeepSpeed"

# As in LMI 0.25: choices that run at once where nothing is said.
_MAX_BATCH: Final = 4


def load(bound: BoundSpec, progress: Progress) -> Engine:
    """A model of DeepSpeed. Raises ConfigError, ModelError or EngineDead."""
    bound = lmi_dist.prepared(bound, progress)
    config, own = plan(bound)
    return start(config, own, progress, mpirun=lmi_dist.by_mpirun(bound))


def start(config: DistConfig, own: Settings, progress: Progress, *, mpirun: bool = False) -> Engine:
    """Start the ranks and wait until they have loaded. Raises as `load` does."""
    from lmi.dist.parallel.degrees import check
    from lmi.dist.process import ProcessEngine

    check(config)
    progress("importing deepspeed", 0, 0)
    return ProcessEngine.load(
        config,
        progress,
        core=CORE,
        arguments={"settings": own.plain()},
        name=NAME,
        mpirun=mpirun,
    )


def plan(bound: BoundSpec) -> tuple[DistConfig, Settings]:
    """What LMI-Dist is told, and what DeepSpeed. Raises ConfigError."""
    spec = bound.spec
    runtime = spec.options.get("runtime", "auto")
    if runtime not in ("auto", "transformers"):
        want = "DeepSpeed divides models of transformers; expected auto or transformers"
        raise ConfigError("option.runtime", str(runtime), "the configuration", want)
    base = lmi_dist.config(replace(bound, spec=replace(spec, **_words(bound))))
    own = settings(spec.options, spec.folder or bound.path, base.tensor_parallel)
    changes: dict[str, Any] = {"runtime": "transformers"}
    if "max_rolling_batch_size" not in spec.options:
        changes["max_batch"] = _MAX_BATCH
    if own.max_tokens is not None:
        changes["max_model_len"] = min(own.max_tokens, base.max_model_len or own.max_tokens)
    return replace(base, **changes), own


def _words(bound: BoundSpec) -> Mapping[str, Any]:
    """The dtype as LMI-Dist knows it: int8 is a way to keep weights, and auto is exact on a CPU."""
    spec = bound.spec
    dtype = spec.dtype.lower()
    if dtype == "int8":
        if spec.options.get("quantize", "int8") not in ("int8", "dynamic_int8"):
            want = f"option.quantize={spec.options['quantize']} names other weights; keep one"
            raise ConfigError("option.dtype", spec.dtype, "the configuration", want)
        options = {**spec.options, "quantize": "int8"}
        return {"dtype": _auto(), "options": options}
    return {"dtype": _auto() if dtype == "auto" else spec.dtype}


def _auto() -> str:
    return "auto" if visible_gpus() else "float32"
