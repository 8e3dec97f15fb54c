"""LMI-Dist behind the options: how each maps to a field of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

from lmi.config.folder import read_model
from lmi.config.quantization import quantised
from lmi.config.spec import ModelSpec
from lmi.core import ConfigError, Engine
from lmi.dist.config import CacheDtype, DistConfig, Dtype, Quantize
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

SMOOTHQUANT: Final = "smoothquant"

_CACHE_DTYPES: Final[dict[str, CacheDtype]] = {"auto": "auto", "fp8": "fp8", "fp8_e4m3": "fp8"}

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
        quantize=_at_load(bound.path, spec.options),
        kv_cache_dtype=_CACHE_DTYPES[str(spec.options.get("kv_cache_dtype", "auto"))],
        **_switches(spec.options),
    )


def _degree(asked: int | Literal["max"] | None) -> int:
    """Ranks: max is every GPU here, and one where there is none."""
    if asked == "max":
        return max(1, visible_gpus())
    return asked or 1


def _at_load(path: Path, options: Mapping[str, object]) -> Quantize:
    """What is done to plain weights while they are read; nothing to those quantised already."""
    named = options.get("quantize")
    if named not in get_args(Quantize):
        return "none"
    file = path / "config.json"
    if file.is_file() and quantised(read_model(file), path) is not None:
        return "none"
    return cast("Quantize", named)


def _switches(options: Mapping[str, object]) -> dict[str, Any]:
    found = {field: options[key] for key, field in FIELDS.items() if key in options}
    if "enforce_eager" in options:
        found["cuda_graphs"] = not options["enforce_eager"]
    return found


def by_mpirun(bound: BoundSpec) -> bool:
    """Whether Open MPI is to start the ranks."""
    return bound.spec.options.get("mpi_mode") is True


def prepared(bound: BoundSpec, progress: Progress) -> BoundSpec:
    """The model as it is loaded: with option.quantize=smoothquant a W8A8 checkpoint made of it.

    That is taken from the artifacts, or made now, which reads the whole model once. Raises
    ConfigError for calibration data that can't be used, and ModelError.
    """
    if bound.spec.options.get("quantize") != SMOOTHQUANT:
        return bound
    from lmi.quantize.smoothquant.ensured import ensure

    assert bound.path is not None, "SmoothQuant needs a model"
    assert bound.artifacts is not None, "a bound model says where artifacts are kept"
    made = ensure(bound.path, cache=bound.artifacts, progress=progress, **smoothing(bound.spec))
    return replace(bound, path=made)


def smoothing(spec: ModelSpec) -> dict[str, Any]:
    """What of the options SmoothQuant is told; unset, its own defaults hold."""
    found: dict[str, Any] = {"trust_remote_code": spec.trust_remote_code}
    if "smoothquant_alpha" in spec.options:
        found["alpha"] = spec.options["smoothquant_alpha"]
    if "calibration_data" in spec.options:
        found["calibration"] = Path(str(spec.options["calibration_data"]))
    return found


def load(bound: BoundSpec, progress: Progress) -> Engine:
    """The loader of this engine's card: the model in a process of its own."""
    from lmi.dist.process import ProcessEngine

    bound = prepared(bound, progress)
    progress("importing torch", 0, 0)
    return ProcessEngine.load(config(bound), progress, mpirun=by_mpirun(bound))
