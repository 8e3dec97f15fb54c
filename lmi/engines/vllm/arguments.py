"""What the options are in the words of vLLM's command line; pure, no vLLM here.

As words and not as values: vLLM's own parser then makes of each what its release wants, so that
every engine argument works as it does for `vllm serve`. What each word may be, `lmi check` has
already said, by the table of the installed release.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from lmi.config.spec import ModelSpec
from lmi.config.vllm_arguments import Argument
from lmi.core import ConfigError
from lmi.engines.bound import BoundSpec

# The spellings that LMI's options allow, and vLLM's.
_DTYPES: Final = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}

# Options whose name in vLLM is another.
RENAMED: Final = {
    "quantize": "quantization",
    "cpu_offload_gb_per_gpu": "cpu_offload_gb",
    "pipeline_parallel_degree": "pipeline_parallel_size",
}
# Fields of the spec, by vLLM's name.
_FROM_SPEC: Final = {
    "max_num_seqs": "max_rolling_batch_size",
    "max_num_batched_tokens": "max_rolling_batch_prefill_tokens",
    "max_model_len": "max_model_len",
    "block_size": "block_size",
    "kv_cache_memory_bytes": "kv_cache_memory",
}
# LMI's defaults, where vLLM's may be others.
_LORA_DEFAULTS: Final = {"max_loras": 4, "max_lora_rank": 16}
_SPECULATIVE: Final = {
    "speculative_draft_model": "model",
    "speculative_length": "num_speculative_tokens",
    "draft_model_tp_size": "draft_tensor_parallel_size",
}
_DRAFT_LENGTH: Final = 5  # LMI's default of option.speculative_length


def command_line(bound: BoundSpec, known: Mapping[str, Argument], ranks: int) -> tuple[str, ...]:
    """The words of one model. known: the installed release's arguments. ranks: tensor parallel.

    Raises ConfigError for options that contradict each other.
    """
    words: list[str] = []
    for name, value in values(bound, known, ranks).items():
        flag = f"--{name.replace('_', '-')}"
        match value:
            case True:
                words.append(flag)
            case False:
                words.append(flag.replace("--", "--no-", 1))
            case dict():
                words += (flag, json.dumps(value))
            case list() | tuple():
                words += (flag, *map(str, value))
            case _:
                words.append(f"{flag}={value}")  # so that a value may begin with a dash
    return tuple(words)


def values(bound: BoundSpec, known: Mapping[str, Argument], ranks: int) -> dict[str, Any]:
    """vLLM's arguments by name, with the values that were set."""
    spec = bound.spec
    assert bound.path is not None, "the card of vllm needs a model"
    found: dict[str, Any] = {
        "model": str(bound.path),
        "dtype": _DTYPES.get(spec.dtype, spec.dtype),
        "trust_remote_code": spec.trust_remote_code,
        "tensor_parallel_size": ranks,
    }
    for name, field in _FROM_SPEC.items():
        value = getattr(spec, field)
        if value is not None:
            found[name] = value
    for key, value in spec.options.items():
        name = RENAMED.get(key, key)
        if name in known and name not in found:
            found[name] = value
    if found.get("enable_lora"):
        found = {**_LORA_DEFAULTS, **found}
    if "quantization" in found:
        found["quantization"] = _quantization(str(found["quantization"]))
    if isinstance(limits := found.get("limit_mm_per_prompt"), str):
        found["limit_mm_per_prompt"] = _limits(limits)
    found |= _draft(spec)
    return found


def _quantization(name: str) -> str:
    return "bitsandbytes" if name == "bitsandbytes8" else name


def _limits(text: str) -> dict[str, Any]:
    """JSON, or the older `image=2,video=1`."""
    if text.lstrip().startswith("{"):
        found: dict[str, Any] = json.loads(text)
        return found
    pairs = (part.partition("=") for part in text.split(","))
    return {name.strip(): int(count) for name, _, count in pairs}


def _draft(spec: ModelSpec) -> dict[str, Any]:
    """The options of a draft model, as vLLM's one argument."""
    options = spec.options
    said = {name: options[key] for key, name in _SPECULATIVE.items() if key in options}
    if not said or not said.get("num_speculative_tokens", 1):
        return {}
    if "speculative_config" in options:
        want = "option.speculative_config says the same; keep one of them"
        key = next(key for key in _SPECULATIVE if key in options)
        raise ConfigError(f"option.{key}", str(options[key]), "the configuration", want)
    if "model" not in said:
        want = "expected option.speculative_draft_model beside it"
        key = next(key for key in _SPECULATIVE if key in options)
        raise ConfigError(f"option.{key}", str(options[key]), "the configuration", want)
    return {"speculative_config": {"num_speculative_tokens": _DRAFT_LENGTH, **said}}
