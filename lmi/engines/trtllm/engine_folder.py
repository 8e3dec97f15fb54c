"""A folder with TensorRT engines: what its config.json says, and what differs from here.

The form is that of `trtllm-build` and of `LLM.save` since TensorRT-LLM 0.9: `pretrained_config`
(the model), `build_config` (the limits) and `version` in config.json, and `rank<i>.engine` for each
rank.
Source: NVIDIA/TensorRT-LLM, tensorrt_llm/builder.py and tensorrt_llm/llmapi/llm_utils.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lmi.core import ModelError

CONFIG: Final = "config.json"
_MOST_BYTES: Final = 16_000_000  # a config.json is some kilobytes; an engine of that name is none
_TOKENIZERS: Final = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
# Keys of config.json before 0.9, whose engines no release with the LLM class reads.
_OLD_FORM: Final = ("builder_config", "plugin_config")


@dataclass(frozen=True, slots=True)
class EngineFolder:
    """An engine. version: of TensorRT-LLM when it was built, "" where it does not say.

    tensor, pipeline, context: its degrees of parallelism. Limits are None where they are not
    recorded. quantisation: names of QuantAlgo, None for none. tokenizer: it lies in the folder.
    """

    folder: Path
    version: str
    architecture: str
    dtype: str
    tensor: int
    pipeline: int
    context: int
    quantisation: str | None
    kv_quantisation: str | None
    max_batch_size: int | None
    max_input_len: int | None
    max_seq_len: int | None
    max_num_tokens: int | None
    max_beam_width: int | None
    gathers_logits: bool
    tokenizer: bool

    @property
    def ranks(self) -> int:
        """Processes, and GPUs, that it runs on."""
        return self.tensor * self.pipeline * self.context

    def limits(self) -> str:
        """Its limits, for people."""
        named = (
            ("batch", self.max_batch_size),
            ("prompt", self.max_input_len),
            ("prompt and answer", self.max_seq_len),
            ("tokens in a step", self.max_num_tokens),
        )
        return ", ".join(f"{name} {value}" for name, value in named if value is not None)


def is_engine(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is an engine's, of any age."""
    return ("pretrained_config" in config and "build_config" in config) or _is_old(config)


def is_checkpoint(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a TensorRT-LLM checkpoint (its own weights, no engine)."""
    return "architecture" in config and "dtype" in config and "architectures" not in config


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object out of a file. Raises ModelError where there is none."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ModelError(f"{path}: {path.stat().st_size} bytes; expected a configuration")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: expected JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return found


def read_engine(folder: Path, config: Mapping[str, Any]) -> EngineFolder:
    """The engine whose config.json that is. Raises ModelError where it can't be one."""
    where = folder / CONFIG
    if _is_old(config):
        raise ModelError(
            f"{where}: built by TensorRT-LLM before 0.9, in a form that no later release reads; "
            "build the engine again"
        )
    model, build = _part(config, "pretrained_config", where), _part(config, "build_config", where)
    mapping = _part(model, "mapping", where) if "mapping" in model else {}
    quantisation = _part(model, "quantization", where) if model.get("quantization") else {}
    version = config.get("version")
    return EngineFolder(
        folder=folder,
        version=version if isinstance(version, str) else "",
        architecture=str(model.get("architecture", "")),
        dtype=str(model.get("dtype", "")),
        tensor=_degree(mapping, "tp_size", where),
        pipeline=_degree(mapping, "pp_size", where),
        context=_degree(mapping, "cp_size", where),
        quantisation=_text(quantisation, "quant_algo"),
        kv_quantisation=_text(quantisation, "kv_cache_quant_algo"),
        max_batch_size=_count(build, "max_batch_size"),
        max_input_len=_count(build, "max_input_len"),
        max_seq_len=_count(build, "max_seq_len"),
        max_num_tokens=_count(build, "max_num_tokens"),
        max_beam_width=_count(build, "max_beam_width"),
        gathers_logits=build.get("gather_context_logits") is True,
        tokenizer=has_tokenizer(folder),
    )


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer's files lie in the folder."""
    return any((folder / name).is_file() for name in _TOKENIZERS)


def differences(engine: EngineFolder, version: str) -> Iterator[str]:
    """Why the engine can't run under an installed release, one line each.

    What needs the device itself (its architecture) only the engine's passport knows.
    """
    missing = [
        f"rank{rank}.engine"
        for rank in range(engine.ranks)
        if not (engine.folder / f"rank{rank}.engine").is_file()
    ]
    if missing:
        yield (
            f"{' and '.join(missing[:4])} missing in {engine.folder}, whose config.json says "
            f"{engine.ranks} ranks"
        )
    if engine.version and _line(engine.version) != _line(version):
        yield (
            f"built by TensorRT-LLM {engine.version}, and {version} is installed: an engine runs "
            "under the releases that built it; build it again here, or use the image of "
            f"{engine.version}"
        )


def _line(version: str) -> tuple[str, ...]:
    """The line of releases: `1.2` of 1.2.1 and of 1.2.0rc5."""
    return tuple(version.split(".")[:2])


def _is_old(config: Mapping[str, Any]) -> bool:
    return all(key in config for key in _OLD_FORM)


def _part(values: Mapping[str, Any], key: str, where: Path) -> Mapping[str, Any]:
    found = values.get(key)
    if not isinstance(found, Mapping):
        raise ModelError(f"{where}: {key} is no JSON object")
    return found


def _degree(mapping: Mapping[str, Any], key: str, where: Path) -> int:
    found = mapping.get(key, 1)
    if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= 4096:
        raise ModelError(f"{where}: mapping.{key}={found!r}: expected a whole number from 1")
    return found


def _count(values: Mapping[str, Any], key: str) -> int | None:
    found = values.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _text(values: Mapping[str, Any], key: str) -> str | None:
    found = values.get(key)
    return found if isinstance(found, str) and found else None
