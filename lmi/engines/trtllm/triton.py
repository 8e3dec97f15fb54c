"""A model repository made for Triton (`tensorrtllm_backend`): found, read, said as our options.

    repository/            what a user names; or directly the folder of one of its models
      ensemble/            wires the others together: our front does that
      preprocessing/       tokenizer_dir
      postprocessing/
      tensorrt_llm/        config.pbtxt: gpt_model_path, and settings of the executor
        1/                 the engine, where gpt_model_path is unset or unfilled
                           (that is LMI's own form for TensorRT-LLM too)
      tensorrt_llm_bls/    the same as ensemble, in Python

The newer template `llmapi` has `tensorrt_llm/1/model.yaml` with keyword arguments of LLM instead.
Source: NVIDIA/TensorRT-LLM triton_backend/all_models; triton-inference-server/tensorrtllm_backend
docs/model_config.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from lmi.config.options import spellings
from lmi.core import ModelError
from lmi.engines.trtllm.pbtxt import Message, parse

_CONFIG: Final = "config.pbtxt"
_MODEL: Final = "tensorrt_llm"
_VERSION: Final = re.compile(r"\d+")
_PLACEHOLDER: Final = re.compile(r"\$\{[^}]*\}")
_MOST_BYTES: Final = 1_000_000
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Repository:
    """What a repository asks for.

    engine: the folder that should hold the engine, None with model.yaml. options: ours, by short
    key, parsed. arguments: keyword arguments of LLM that no option stands for, nested. model: what
    model.yaml names. refused: what can't be had, a line each; notes: what is not needed, or not
    known, a line each.
    """

    folder: Path
    engine: Path | None
    options: Mapping[str, object] = field(default_factory=lambda: _NOTHING)
    arguments: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    model: str | None = None
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def find(folder: Path) -> Path | None:
    """The folder of the repository's model that holds the engine; None where it is no repository.

    folder: the repository, or that model's own folder.
    """
    candidates = [folder / _MODEL, folder]
    try:
        candidates += sorted(child for child in folder.iterdir() if child.is_dir())
    except OSError:
        return None
    for candidate in candidates:
        if (candidate / _CONFIG).is_file() and _versions(candidate):
            text = _read(candidate / _CONFIG)
            if _parameter(_parsed(text, candidate / _CONFIG), "gpt_model_path") is not None:
                return candidate
            if _model_yaml(candidate) is not None:
                return candidate
    return candidates[0] if (candidates[0] / _CONFIG).is_file() else None


def read(root: Path, model: Path) -> Repository:
    """What the repository asks for. root: the whole; model: as `find` gives it.

    Raises ModelError for files that can't be read.
    """
    described = _model_yaml(model)
    if described is not None:
        return _of_yaml(model, described)
    path = model / _CONFIG
    config = _parsed(_read(path), path)
    reading = _Reading(str(path))
    for message in config.all("parameters"):
        if isinstance(message, Message):
            reading.take(message)
    if "tokenizer" not in reading.options:
        found = _tokenizer_dir(root)
        if found is not None:
            reading.options["tokenizer"] = found
    if reading.unfilled:
        names = ", ".join(sorted(reading.unfilled))
        reading.notes.append(f"{path.name}: left unfilled in the template, so unset: {names}")
    return Repository(
        folder=model,
        engine=_engine(model, reading.engine),
        options=MappingProxyType(reading.options),
        arguments=MappingProxyType(reading.arguments),
        refused=tuple(reading.refused),
        notes=tuple(reading.notes),
    )


def _engine(model: Path, named: str | None) -> Path:
    """The engine's folder: as it is named, if that is there, else the model's newest version."""
    if named is not None:
        path = Path(named) if Path(named).is_absolute() else model / named
        if path.is_dir():
            return path
    return _versions(model)[-1]


def _versions(model: Path) -> list[Path]:
    found = [each for each in model.iterdir() if _VERSION.fullmatch(each.name) and each.is_dir()]
    return sorted(found, key=lambda each: int(each.name))


def _tokenizer_dir(root: Path) -> str | None:
    """The tokenizer that the steps before and after the engine use."""
    for step in ("preprocessing", "postprocessing"):
        path = root / step / _CONFIG
        if path.is_file():
            named = _parameter(_parsed(_read(path), path), "tokenizer_dir")
            if named and not _PLACEHOLDER.search(named):
                return named
    return None


# --- parameters of config.pbtxt ---------------------------------------------------------------

_SAME: Final = (
    *("max_beam_width", "sink_token_length", "batch_scheduler_policy", "cross_kv_cache_fraction"),
    *("kv_cache_free_gpu_mem_fraction", "enable_trt_overlap", "enable_kv_cache_reuse"),
    *("normalize_log_probs", "multi_block_mode", "iter_stats_max_iterations"),
    *("request_stats_max_iterations", "guided_decoding_backend"),
)
_RENAMED: Final = {
    **{name: name for name in _SAME},
    "max_tokens_in_paged_kv_cache": "max_tokens",
    "kv_cache_host_memory_bytes": "host_cache_size",
    "kv_cache_onboard_blocks": "onboard_blocks",
    "enable_chunked_context": "enable_chunked_prefill",
    "tokenizer_dir": "tokenizer",
    "num_nodes": "cluster_size",
}
_KNOBS: Final[Mapping[str, Callable[[str], object]]] = {
    "enable_context_fmha_fp32_acc": lambda text: _flag(text),
    "cuda_graph_mode": lambda text: _flag(text),
    "cuda_graph_cache_size": int,
}
# Parameters of the LoRA cache, and fields of PeftCacheConfig.
_ADAPTERS: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "lora_cache_optimal_adapter_size": ("optimal_adapter_size", int),
    "lora_cache_max_adapter_size": ("max_adapter_size", int),
    "lora_cache_gpu_memory_fraction": ("device_cache_percent", float),
    "lora_cache_host_memory_bytes": ("host_cache_size", int),
}
_LOOKAHEAD: Final = {
    "lookahead_window_size": "max_window_size",
    "lookahead_ngram_size": "max_ngram_size",
    "lookahead_verification_set_size": "max_verification_set_size",
}
_NOT_NEEDED: Final = {
    "FORCE_CPU_ONLY_INPUT_TENSORS": "there are no tensors of Triton's here",
    "executor_worker_path": "the library starts its own ranks",
    "exclude_input_in_output": "each request says whether its prompt is given back",
    "cancellation_check_period_ms": "a cancelled request is told at once",
    "stats_check_period_ms": "statistics are read when they are asked for",
    "recv_poll_period_ms": "the worker waits for messages and does not poll",
    "xgrammar_tokenizer_info_path": "it is made from the tokenizer",
    "gpu_device_ids": "CUDA_VISIBLE_DEVICES says which GPUs are used",
    "participant_ids": "the ranks are numbered by the launcher",
    "speculative_decoding_fast_logits": "no draft model runs beside the engine",
    "add_special_tokens": "each request says whether special tokens are added",
    "skip_special_tokens": "each request says whether special tokens are shown",
}
_CANNOT: Final = {
    "encoder_model_path": "models with an encoder are not served by the LLM class",
    "medusa_choices": "the choices of Medusa are fixed in this engine's build",
    "eagle_choices": "the choices of Eagle are fixed in this engine's build",
    "lora_prefetch_dir": "adapters are not loaded ahead of requests",
}
_BATCHING: Final = {
    "inflight_fused_batching": "INFLIGHT",
    "inflight_batching": "INFLIGHT",
    "v1": "STATIC",
}
# What the executor chooses by itself from the engine.
_DECODING: Final = frozenset({"top_k", "top_p", "top_k_top_p", "beam_search", "auto"})


class _Reading:
    """What the parameters have said so far."""

    def __init__(self, where: str) -> None:
        self._where = where
        self.options: dict[str, object] = {}
        self.arguments: dict[str, Any] = {}
        self.refused: list[str] = []
        self.notes: list[str] = []
        self.unfilled: set[str] = set()
        self.engine: str | None = None

    def take(self, parameter: Message) -> None:
        name = parameter.text("key") or ""
        text = _string(parameter)
        if name == "" or text is None or text == "":
            return
        if _PLACEHOLDER.search(text):
            self.unfilled.add(name)
        elif name == "gpt_model_path":
            self.engine = text
        else:
            try:
                self._set(name, text)
            except ValueError as error:
                self.refused.append(f"{self._where}: {name}={text!r}: {error}")

    def _set(self, name: str, text: str) -> None:
        if name in _RENAMED:
            key = _RENAMED[name]
            self.options[key] = spellings()[f"option.{key}"].kind.parse(text)
        elif name == "max_attention_window_size":
            self.options["max_attention_window"] = [int(part) for part in text.split(",")]
        elif name == "gpt_model_type":
            if text.lower() not in _BATCHING:
                raise ValueError(f"expected one of {', '.join(_BATCHING)}")
            self.options["batching_type"] = _BATCHING[text.lower()]
        elif name in _KNOBS:
            knobs = self.options.setdefault("extended_runtime_perf_knob_config", {})
            assert isinstance(knobs, dict), "made by the line above"
            knobs[name] = _KNOBS[name](text)
        elif name in _ADAPTERS:
            key, read_as = _ADAPTERS[name]
            self.arguments.setdefault("peft_cache_config", {})[key] = read_as(text)
        elif name in _LOOKAHEAD:
            config = self.arguments.setdefault("speculative_config", {"decoding_type": "Lookahead"})
            config[_LOOKAHEAD[name]] = int(text)
        elif name == "decoding_mode":
            if text.lower() not in _DECODING:
                raise ValueError(f"the engine's build says it; expected {', '.join(_DECODING)}")
            self.notes.append(f"{name}={text}: each request says how its tokens are drawn")
        elif name == "gpu_weights_percent":
            if float(text) != 1.0:
                raise ValueError("weights are not streamed from host memory here; expected 1.0")
        elif name in _CANNOT:
            raise ValueError(_CANNOT[name])
        elif name in _NOT_NEEDED:
            self.notes.append(f"{name}: not needed, {_NOT_NEEDED[name]}")
        else:
            self.notes.append(f"{name}={text!r}: no parameter that is known here; nothing reads it")


def _parameter(config: Message, name: str) -> str | None:
    for message in config.all("parameters"):
        if isinstance(message, Message) and message.text("key") == name:
            return _string(message)
    return None


def _string(parameter: Message) -> str | None:
    for value in parameter.all("value"):
        if isinstance(value, Message):
            return value.text("string_value")
    return None


def _flag(text: str) -> bool:
    found = spellings()["option.fast_build"].kind.parse(text)
    assert isinstance(found, bool), "that option is a boolean"
    return found


def _parsed(text: str, path: Path) -> Message:
    try:
        return parse(text)
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ModelError(f"{path}: more than {_MOST_BYTES} bytes; expected a configuration")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: expected text in UTF-8") from error


# --- model.yaml of the llmapi template --------------------------------------------------------


def _model_yaml(model: Path) -> Path | None:
    return next(
        (
            each / "model.yaml"
            for each in reversed(_versions(model))
            if (each / "model.yaml").is_file()
        ),
        None,
    )


def _of_yaml(model: Path, path: Path) -> Repository:
    try:
        found = yaml.safe_load(_read(path))
    except (yaml.YAMLError, RecursionError) as error:
        raise ModelError(f"{path}: expected YAML: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("model"), str):
        raise ModelError(f"{path}: expected `model` and keyword arguments of LLM")
    arguments = {str(key): value for key, value in found.items() if key != "model"}
    refused = []
    if arguments.pop("logits_post_processors", None):
        refused.append(f"{path}: logits_post_processors: code of Triton's is not run here")
    notes = []
    if arguments.pop("triton_config", None) is not None:
        notes.append(f"{path.name}: triton_config: not needed, there is no Triton here")
    return Repository(
        folder=model,
        engine=None,
        arguments=MappingProxyType(arguments),
        model=found["model"],
        refused=tuple(refused),
        notes=tuple(notes),
    )
