"""LMI-Dist behind the options: how each maps to a field of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from lmi.core import ConfigError, Engine
from lmi.dist.config import DistConfig, Dtype
from lmi.engines.bound import BoundSpec, Progress
from lmi.engines.devices import visible_gpus

# The spellings that LMI's options allow, and what LMI-Dist calls them.
DTYPES: Final[dict[str, Dtype]] = {
    "auto": "auto",
    "fp32": "float32",
    "float32": "float32",
    "fp16": "float16",
    "float16": "float16",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
}

# Options that are a field of the configuration as they stand; unset, the field's own default holds.
FIELDS: Final = {
    "runtime": "runtime",
    "use_custom_all_reduce": "custom_all_reduce",
    "collective_timeout": "collective_timeout",
    "enable_prefix_caching": "prefix_cache",
    "speculative_tokens": "speculative_tokens",
    "speculative_ngram": "speculative_ngram",
    "gpu_memory_utilization": "device_memory_share",
}


def config(bound: BoundSpec) -> DistConfig:
    """What LMI-Dist is told. Raises ConfigError for a dtype that it does not have."""
    spec = bound.spec
    assert bound.path is not None, "the card of lmi-dist needs a model"
    dtype = DTYPES.get(spec.dtype.lower())
    if dtype is None:
        want = f"LMI-Dist computes in {', '.join(DTYPES)}"
        raise ConfigError("option.dtype", spec.dtype, "the configuration", want)
    defaults = DistConfig(bound.path)
    return DistConfig(
        model=bound.path,
        dtype=dtype,
        max_model_len=spec.max_model_len,
        max_batch=spec.max_rolling_batch_size,
        prefill_tokens=spec.max_rolling_batch_prefill_tokens or defaults.prefill_tokens,
        block_size=spec.block_size or defaults.block_size,
        kv_cache_bytes=spec.kv_cache_memory,
        threads=spec.threads,
        trust_remote_code=spec.trust_remote_code,
        tensor_parallel=_degree(spec.tensor_parallel_degree),
        **_switches(spec.options),
    )


def _degree(asked: int | Literal["max"] | None) -> int:
    """Ranks: max is every GPU here, and one where there is none."""
    if asked == "max":
        return max(1, visible_gpus())
    return asked or 1


def _switches(options: Mapping[str, object]) -> dict[str, Any]:
    found = {field: options[key] for key, field in FIELDS.items() if key in options}
    if "enforce_eager" in options:
        found["cuda_graphs"] = not options["enforce_eager"]
    return found


def by_mpirun(bound: BoundSpec) -> bool:
    """Whether Open MPI is to start the ranks."""
    return bound.spec.options.get("mpi_mode") is True


def load(bound: BoundSpec, progress: Progress) -> Engine:
    """The loader of this engine's card: the model in a process of its own."""
    from lmi.dist.process import ProcessEngine

    progress("importing torch", 0, 0)
    return ProcessEngine.load(config(bound), progress, mpirun=by_mpirun(bound))
