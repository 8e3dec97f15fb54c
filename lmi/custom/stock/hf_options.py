"""What option.* tells the handler of transformers models."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from lmi.config.quantization.methods import BY_NAME
from lmi.core import ConfigError
from lmi.custom.stock import options

Dtype = Literal["auto", "float32", "float16", "bfloat16"]
_DTYPES: Final[dict[str, Dtype]] = {
    "auto": "auto",
    "fp32": "float32",
    "float32": "float32",
    "fp16": "float16",
    "float16": "float16",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
}
_QUANTIZE: Final = {"bitsandbytes4": "load_in_4bit", "bitsandbytes8": "load_in_8bit"}
# Methods that a checkpoint's own configuration says more of.
_OF_CHECKPOINTS: Final = frozenset({"none", "gptq", "awq", "fp8", "compressed-tensors", "torchao"})
_STREAMING: Final = ("true", "false", "huggingface")


@dataclass(frozen=True, slots=True)
class HuggingFaceOptions:
    """How a model is loaded and answers.

    model_id_or_path: option.model_id, else the model's folder. task: None where the model's
    configuration tells it. rolling_batch: the engine's name, None where requests go to
    transformers one by one. device: `cuda:0` or `cpu`; None where device_map says it. stop: strings
    that end every generation.
    """

    model_id_or_path: str
    task: str | None = None
    rolling_batch: str | None = None
    streaming: bool = False
    device: str | None = "cpu"
    device_map: Any = None
    dtype: Dtype | None = None
    quantize: str | None = None
    trust_remote_code: bool = False
    revision: str | None = None
    normalize: bool = True
    stop: tuple[str, ...] = ()

    @classmethod
    def read(cls, properties: Mapping[str, Any]) -> HuggingFaceOptions:
        """From the properties of an initialise call. Raises ConfigError."""
        model = options.text(properties, "model_id") or options.text(properties, "model_dir")
        if model is None:
            raise ConfigError(
                "option.model_id", None, options.SOURCE, "expected a model: a hub id or a folder"
            )
        if options.flag(properties, "is_peft_model"):
            raise ConfigError(
                "option.is_peft_model",
                "true",
                options.SOURCE,
                "expected a model that has its adapter merged already (peft is not installed)",
            )
        rolling_batch = options.text(properties, "rolling_batch")
        quantize = _quantize(properties)
        device_map = _device_map(properties)
        if quantize is not None and device_map is None:
            device_map = {"": _device(properties)}  # such layers are put in place, never moved
        return cls(
            model_id_or_path=model,
            task=_task(properties),
            rolling_batch=None if rolling_batch in (None, "disable") else rolling_batch,
            streaming=options.one_of(properties, "enable_streaming", _STREAMING, "false")
            != "false",
            device_map=device_map,
            device=None if device_map is not None else _device(properties),
            dtype=_dtype(properties),
            quantize=quantize,
            trust_remote_code=options.flag(properties, "trust_remote_code"),
            revision=options.text(properties, "revision"),
            normalize=options.flag(properties, "normalize", default=True),
            stop=parse_stop(options.text(properties, "stop_sequence")),
        )

    def loading(self) -> dict[str, Any]:
        """What `from_pretrained` of a model is told."""
        found: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        if self.revision is not None:
            found["revision"] = self.revision
        if self.dtype is not None:
            found["dtype"] = self.dtype
        if self.device_map is not None:
            found["device_map"] = self.device_map
        if self.quantize is not None:
            from transformers import BitsAndBytesConfig

            found["quantization_config"] = BitsAndBytesConfig(**{_QUANTIZE[self.quantize]: True})
        return found

    def tokenizing(self) -> dict[str, Any]:
        """What `from_pretrained` of a tokenizer is told."""
        found: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        return found if self.revision is None else {**found, "revision": self.revision}


def parse_stop(value: str | None) -> tuple[str, ...]:
    """A list of strings, as JSON or with other quotes. Raises ConfigError."""
    if value is None:
        return ()
    try:
        found = json.loads(value)
    except ValueError:
        found = [each.strip().strip("'\"") for each in value.strip("[]").split(",")]
    if isinstance(found, str):
        found = [found]
    if not isinstance(found, list) or not all(isinstance(each, str) and each for each in found):
        want = 'expected a list of strings such as ["END", "###"]'
        raise ConfigError("option.stop_sequence", value, options.SOURCE, want)
    return tuple(found)


def _task(properties: Mapping[str, Any]) -> str | None:
    task = options.text(properties, "task")
    return None if task in (None, "auto") else task


def _device(properties: Mapping[str, Any]) -> str:
    number = options.whole(properties, "device_id", -1)
    return "cpu" if number < 0 else f"cuda:{number}"


def _device_map(properties: Mapping[str, Any]) -> Any:
    value = options.text(properties, "device_map")
    if value is None or not value.startswith("{"):
        return value
    try:
        return json.loads(value)
    except ValueError:
        want = "expected auto, balanced, balanced_low_0, sequential or a JSON object"
        raise ConfigError("option.device_map", value, options.SOURCE, want) from None


def _dtype(properties: Mapping[str, Any]) -> Dtype | None:
    value = options.one_of(properties, "dtype", (*_DTYPES, "int8"), None)
    if value == "int8":
        want = "expected option.quantize=bitsandbytes8 for weights of 8 bits"
        raise ConfigError("option.dtype", value, options.SOURCE, want)
    return None if value is None else _DTYPES[value]


def _quantize(properties: Mapping[str, Any]) -> str | None:
    """What bitsandbytes is to do; None for nothing, also where the checkpoint is quantised."""
    value = options.text(properties, "quantize")
    if value is not None and value.lower() in BY_NAME:
        value = BY_NAME[value.lower()].name
    for name, older in _QUANTIZE.items():
        if options.flag(properties, older):
            value = name
    if value is None or value in _OF_CHECKPOINTS:
        return None
    if value not in _QUANTIZE:
        want = f"expected {' or '.join(_QUANTIZE)}; a checkpoint that is quantised needs neither"
    elif importlib.util.find_spec("bitsandbytes") is None:
        want = "bitsandbytes is not installed: add it to the model's requirements.txt"
    else:
        return value
    raise ConfigError("option.quantize", value, options.SOURCE, want)
