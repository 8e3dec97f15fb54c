"""What a model's folder holds, as far as TensorRT-LLM can start from it.

engine      config.json with pretrained_config and build_config, rank<i>.engine
checkpoint  config.json with architecture and dtype: TensorRT-LLM's own weights, to be compiled
triton      a model repository for Triton: an engine inside, and settings
modelopt    a Hugging Face folder that ModelOpt has quantised (hf_quant_config.json)
hf          any other Hugging Face folder, or a model whose files are not here yet
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from lmi.config.quantization import Quantised, quantised
from lmi.core import ModelError
from lmi.engines.bound import BoundSpec
from lmi.engines.trtllm import triton
from lmi.engines.trtllm.engine_folder import (
    CONFIG,
    EngineFolder,
    is_checkpoint,
    is_engine,
    read_engine,
    read_json,
)
from lmi.engines.trtllm.triton import Repository

Kind = Literal["engine", "checkpoint", "triton", "hf", "modelopt"]

_MODELOPT: Final = "hf_quant_config.json"
# Names of a model's width, heads and the like: Hugging Face's, then those of older families.
_HEADS: Final = ("num_attention_heads", "n_head", "num_heads", "n_heads")
_KV_HEADS: Final = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
_LAYERS: Final = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_CONTEXT: Final = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model decides how it can be divided. None: not known."""

    architecture: str | None = None
    heads: int | None = None
    kv_heads: int | None = None
    layers: int | None = None
    context: int | None = None


@dataclass(frozen=True, slots=True)
class Inside:
    """A model's folder. known: its files are here; where not, it is taken for `hf`.

    model: its config.json. engine: of the kinds engine and triton. repository: of triton.
    checkpoint: how the weights of the kinds hf and modelopt are quantised, None where they are not.
    algorithm, kv_algorithm: names of QuantAlgo, of modelopt's and TensorRT-LLM's own checkpoints.
    tensor, pipeline: degrees that a TensorRT-LLM checkpoint is divided by already.
    """

    kind: Kind
    folder: Path
    known: bool = True
    model: Mapping[str, Any] | None = None
    shape: Shape = Shape()
    engine: EngineFolder | None = None
    repository: Repository | None = None
    checkpoint: Quantised | None = None
    algorithm: str | None = None
    kv_algorithm: str | None = None
    tensor: int = 1
    pipeline: int = 1


def of(bound: BoundSpec) -> Inside:
    """What the model of a configuration is. Raises ModelError for files that can't be read.

    A model whose files are not here yet is of the kind `hf`, and not known.
    """
    converted = bound.spec.options.get("trtllm_checkpoint_path")
    if converted is not None:
        base = bound.path or bound.spec.folder or Path()
        path = base / str(converted)
        if not path.is_dir():
            raise ModelError(
                f"option.trtllm_checkpoint_path={str(converted)!r}: expected a folder that is there"
            )
        return look(path)
    if bound.path is None:
        return Inside("hf", Path(bound.spec.model), known=False)
    return look(bound.path)


def look(folder: Path) -> Inside:
    """What a folder holds. Raises ModelError where that can't be served or read."""
    path = folder / CONFIG
    if path.is_file():
        return _of_config(folder, read_json(path))
    model = triton.find(folder)
    if model is not None:
        return _of_repository(folder, triton.read(folder, model))
    version = folder / "1" / CONFIG  # LMI's form without its config.pbtxt
    if version.is_file() and is_engine(read_json(version)):
        return _of_config(version.parent, read_json(version))
    raise ModelError(
        f"{folder}: no model: expected config.json (of Hugging Face, of a TensorRT-LLM checkpoint "
        "or of an engine), or a repository for Triton"
    )


def _of_config(folder: Path, config: Mapping[str, Any]) -> Inside:
    if is_engine(config):
        engine = read_engine(folder, config)
        shape = shape_of(config.get("pretrained_config") or {})
        return Inside("engine", folder, model=config, shape=shape, engine=engine)
    if is_checkpoint(config):
        return _of_checkpoint(folder, config)
    if (folder / _MODELOPT).is_file():
        return _of_modelopt(folder, config)
    found = quantised(config, folder)
    return Inside("hf", folder, model=config, shape=shape_of(config), checkpoint=found)


def _of_repository(folder: Path, repository: Repository) -> Inside:
    if repository.engine is None:
        named = Path(str(repository.model))
        inner = named if named.is_absolute() else repository.folder / named
        if not inner.is_dir():
            raise ModelError(
                f"{repository.folder}: model.yaml names {repository.model!r}, which is no folder "
                "here: name it as option.model_id"
            )
        found = look(inner)
        return Inside(
            "triton",
            found.folder,
            model=found.model,
            shape=found.shape,
            engine=found.engine,
            repository=repository,
            checkpoint=found.checkpoint,
            algorithm=found.algorithm,
            kv_algorithm=found.kv_algorithm,
        )
    path = repository.engine / CONFIG
    if not path.is_file():
        raise ModelError(
            f"{repository.folder}: no engine: expected {path}, or gpt_model_path in config.pbtxt "
            f"with the folder of one ({folder} is a repository for Triton)"
        )
    config = read_json(path)
    if not is_engine(config):
        raise ModelError(f"{path}: no engine: it has no pretrained_config and build_config")
    engine = read_engine(repository.engine, config)
    shape = shape_of(config.get("pretrained_config") or {})
    return Inside(
        "triton",
        repository.engine,
        model=config,
        shape=shape,
        engine=engine,
        repository=repository,
    )


def _of_checkpoint(folder: Path, config: Mapping[str, Any]) -> Inside:
    mapping, quantisation = _part(config, "mapping"), _part(config, "quantization")
    return Inside(
        "checkpoint",
        folder,
        model=config,
        shape=shape_of(config),
        algorithm=_name(quantisation, "quant_algo"),
        kv_algorithm=_name(quantisation, "kv_cache_quant_algo"),
        tensor=_whole(mapping, ("tp_size",)) or 1,
        pipeline=_whole(mapping, ("pp_size",)) or 1,
    )


def _of_modelopt(folder: Path, config: Mapping[str, Any]) -> Inside:
    quantisation = _part(read_json(folder / _MODELOPT), "quantization")
    return Inside(
        "modelopt",
        folder,
        model=config,
        shape=shape_of(config),
        checkpoint=quantised({}, folder),
        algorithm=_name(quantisation, "quant_algo"),
        kv_algorithm=_name(quantisation, "kv_cache_quant_algo"),
    )


def shape_of(config: Mapping[str, Any]) -> Shape:
    """What a config.json says of how the model can be divided: Hugging Face's or NVIDIA's."""
    inner = config.get("text_config")
    text = {**config, **inner} if isinstance(inner, Mapping) else config
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else config.get("architecture")
    heads = _whole(text, _HEADS)
    kv_heads = _whole(text, _KV_HEADS)
    if text.get("multi_query") is True and text.get("new_decoder_architecture") is not True:
        kv_heads = 1  # Falcon 7B and StarCoder
    return Shape(
        architecture=first if isinstance(first, str) else None,
        heads=heads,
        kv_heads=kv_heads or heads,
        layers=_whole(text, _LAYERS),
        context=_whole(text, _CONTEXT),
    )


def _part(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}


def _name(values: Mapping[str, Any], key: str) -> str | None:
    found = values.get(key)
    return found if isinstance(found, str) and found else None


def _whole(values: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        found = values.get(name)
        if isinstance(found, int) and not isinstance(found, bool) and found > 0:
            return found
    return None
