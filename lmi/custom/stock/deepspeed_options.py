"""What option.* tells DeepSpeed's handler; imports no library, so that a check can ask it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from lmi.core import ConfigError
from lmi.custom.stock import options, tasks
from lmi.custom.stock.hf_options import Dtype
from lmi.engines.deepspeed.settings import Settings, settings

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
_MAX_TOKENS: Final = 1024  # as in LMI 0.25
_FLAGS: Final = ("low_cpu_mem_usage", "enable_cuda_graph", "return_tuple")


@dataclass(frozen=True, slots=True)
class DeepSpeedOptions:
    """How DeepSpeed prepares a model.

    degree: ranks that share it; max: as many as there are devices. dtype: None for what the device
    is best at. triangular_masking: of DeepSpeed's kernels. settings: the engine's, as far as they
    are for models that answer whole batches.
    """

    degree: int | Literal["max"] = 1
    dtype: Dtype | None = None
    triangular_masking: bool = True
    settings: Settings = field(default_factory=lambda: Settings(max_tokens=_MAX_TOKENS))

    @classmethod
    def read(cls, properties: Mapping[str, Any]) -> DeepSpeedOptions:
        """From the properties of an initialise call. Raises ConfigError."""
        _check_task(options.text(properties, "task"))
        _refuse_other_weights(properties)
        degree = _degree(properties)
        streaming = options.text(properties, "enable_streaming")
        if degree != 1 and streaming not in (None, "false"):
            want = "expected false: ranks answer as a whole; option.rolling_batch=deepspeed streams"
            raise _problem("enable_streaming", streaming, want)
        return cls(
            degree,
            _dtype(properties),
            options.flag(properties, "triangular_masking", default=True),
            _settings(properties, 1 if degree == "max" else degree),
        )


def _check_task(task: str | None) -> None:
    if task in (None, "auto"):
        return
    if tasks.canonical(str(task)).partition("_")[0] not in TASKS:  # translation_en_to_fr
        raise _problem("task", task, f"DeepSpeed's tasks are {', '.join(TASKS)}")


def _refuse_other_weights(properties: Mapping[str, Any]) -> None:
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
            raise _problem(name, "true", "expected false: DeepSpeed's tasks are not quantised")
    if (placed := options.text(properties, "device_map")) is not None:
        want = "DeepSpeed places the layers itself; see option.tensor_parallel_degree"
        raise _problem("device_map", placed, want)


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
        want = "expected auto, fp32, fp16 or bf16: DeepSpeed's tasks are not quantised"
        raise _problem("dtype", value, want)
    return _FLOATS[str(value)]


def _settings(properties: Mapping[str, Any], degree: int) -> Settings:
    """What the engine makes of the options that both have, and of DeepSpeed's own file."""
    told: dict[str, Any] = {
        name: options.flag(properties, name)
        for name in _FLAGS
        if options.text(properties, name) is not None
    }
    for name in ("max_tokens", "training_mp_size"):
        if options.text(properties, name) is not None:
            told[name] = options.whole(properties, name, 1)
    for name in ("checkpoint", "deepspeed_config_path"):
        if (named := options.text(properties, name)) is not None:
            told[name] = named
    home = options.text(properties, "model_dir")
    return settings(
        {"max_tokens": _MAX_TOKENS, **told}, None if home is None else Path(home), degree
    )


def _problem(name: str, value: str | None, want: str) -> ConfigError:
    return ConfigError(f"option.{name}", value, options.SOURCE, want)
