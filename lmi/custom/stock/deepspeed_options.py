"""What option.* tells DeepSpeed's handler; imports no library, so that a check can ask it too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from lmi.core import ConfigError
from lmi.custom.stock import options, tasks
from lmi.custom.stock.hf_options import Dtype

TASKS: Final = (
    "conversational",
    "feature-extraction",
    "fill-mask",
    "question-answering",
    "summarization",
    "text-classification",
    "text-embedding",
    "text-generation",
    "text2text-generation",
    "token-classification",
    "translation",
    "zero-shot-classification",
)
"""Tasks of texts: what DeepSpeed's layers are for."""

_FLOATS: Final[dict[str, Dtype]] = {
    "fp32": "float32",
    "float32": "float32",
    "fp16": "float16",
    "float16": "float16",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
}
_OWN_FORMAT: Final = (
    "expected the model's weights as safetensors: DeepSpeed's own sharded checkpoints are not read"
)
# What the file of DeepSpeed's configuration may not say: the first of each pair is why.
_NOT_BY_FILE: Final = {
    **dict.fromkeys(("checkpoint", "base_dir", "checkpoint_config", "ckpt_config"), _OWN_FORMAT),
    **dict.fromkeys(
        ("tensor_parallel", "tp", "mp_size"), "option.tensor_parallel_degree says it; leave it out"
    ),
    "dtype": "option.dtype says it; leave it out",
    "save_mp_checkpoint_path": "models are not partitioned when they are loaded; leave it out",
}


@dataclass(frozen=True, slots=True)
class DeepSpeedOptions:
    """How DeepSpeed prepares a model.

    degree: ranks that share it; max: as many as there are devices. dtype: None for what the device
    is best at. config: more of `deepspeed.init_inference`'s configuration, by its own names.
    """

    degree: int | Literal["max"] = 1
    dtype: Dtype | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, properties: Mapping[str, Any]) -> DeepSpeedOptions:
        """From the properties of an initialise call. Raises ConfigError."""
        task = options.text(properties, "task")
        if task not in (None, "auto") and tasks.canonical(str(task)).partition("_")[0] not in TASKS:
            raise _problem("task", task, f"DeepSpeed's tasks are {', '.join(TASKS)}")
        _refuse(properties)
        return cls(_degree(properties), _dtype(properties), _config(properties))


def _refuse(properties: Mapping[str, Any]) -> None:
    """Raise ConfigError for what can't be done."""
    quantize = options.text(properties, "quantize")
    if quantize not in (None, "none"):
        raise _problem(
            "quantize",
            quantize,
            "expected none: DeepSpeed's tasks compute with the checkpoint's weights; text is "
            "generated with quantised ones under option.rolling_batch=deepspeed",
        )
    for name in ("load_in_8bit", "load_in_4bit"):
        if options.flag(properties, name):
            raise _problem(name, "true", "expected false: see option.quantize")
    if (placed := options.text(properties, "device_map")) is not None:
        want = "DeepSpeed places the layers itself; see option.tensor_parallel_degree"
        raise _problem("device_map", placed, want)
    for name in ("checkpoint", "save_mp_checkpoint_path"):
        if (named := options.text(properties, name)) is not None:
            raise _problem(name, named, _OWN_FORMAT)
    if (size := options.whole(properties, "training_mp_size", 1)) != 1:
        raise _problem("training_mp_size", str(size), _OWN_FORMAT)
    if options.flag(properties, "enable_cuda_graph"):
        want = "expected false: a task's batches change their shapes, which a CUDA graph can't"
        raise _problem("enable_cuda_graph", "true", want)


def _degree(properties: Mapping[str, Any]) -> int | Literal["max"]:
    value = options.text(properties, "tensor_parallel_degree")
    if value == "max":
        return "max"
    degree = options.whole(properties, "tensor_parallel_degree", 1)
    if degree < 1:
        raise _problem("tensor_parallel_degree", value, "expected a whole number from 1, or max")
    return degree


def _dtype(properties: Mapping[str, Any]) -> Dtype | None:
    value = options.text(properties, "dtype")
    if value in (None, "auto"):
        return None
    if value not in _FLOATS:
        want = "expected auto, fp32, fp16 or bf16: weights of tasks are not quantised"
        raise _problem("dtype", value, want)
    return _FLOATS[str(value)]


def _config(properties: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "max_out_tokens": options.whole(properties, "max_tokens", 1024),
        "triangular_masking": options.flag(properties, "triangular_masking", default=True),
        "return_tuple": options.flag(properties, "return_tuple", default=True),
    }
    named = options.text(properties, "deepspeed_config_path")
    if named is None:
        return found
    path = Path(options.text(properties, "model_dir") or "", named)
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _problem("deepspeed_config_path", named, f"expected a JSON file: {error}") from error
    if not isinstance(told, dict):
        raise _problem("deepspeed_config_path", named, "expected a JSON object in the file")
    for key, want in _NOT_BY_FILE.items():
        if key in told:
            raise _problem("deepspeed_config_path", named, f"{key}: {want}")
    return {**found, **told}


def _problem(name: str, value: str | None, want: str) -> ConfigError:
    return ConfigError(f"option.{name}", value, options.SOURCE, want)
