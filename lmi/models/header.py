"""What a model is, from its config.json and its safetensors' headers; no torch, no weights."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmi.core import ModelError
from lmi.models.source import Source, StoredFile

# The safetensors format: 8 bytes of header length (little-endian), the header as JSON, the data.
LENGTH_BYTES = 8
MOST_HEADER_BYTES = 100_000_000  # the format's own limit
FIRST_READ_BYTES = 256 * 1024  # holds the header of most files: one read instead of two
MOST_CONFIG_BYTES = 16 * 1024 * 1024

# Families name the same figure differently.
_NAMES = {
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "head_dim": ("head_dim",),
    "vocab_size": ("vocab_size", "padded_vocab_size"),
    "max_positions": ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
}


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """The figures of a model. None: config.json does not say.

    architectures: names of transformers' classes. dtype: `float16` and so on, of the weights as
    config.json says, else of most bytes. parameters: elements of all tensors; a quantised model
    packs several weights into one. weight_bytes: size of all tensors. max_positions: tokens.
    quantization: the method named in quantization_config.
    """

    architectures: tuple[str, ...]
    model_type: str | None
    dtype: str | None
    parameters: int
    weight_bytes: int
    hidden_size: int | None
    layers: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    vocab_size: int | None
    max_positions: int | None
    quantization: str | None


@dataclass(frozen=True, slots=True)
class _Tensors:
    """What one file holds: elements in all, and bytes by dtype."""

    elements: int
    bytes: Counter[str]


_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8"}


def read_header(source: Source) -> ModelHeader:
    """Raises ModelError where there is no config.json, or a file is no safetensors or cut short."""
    files = {file.name: file for file in source.files()}
    config = _config(source, files)
    # A model that sees or hears keeps the language model's figures one level down.
    inner = config.get("text_config")
    text = {**config, **inner} if isinstance(inner, dict) else config
    tensors = [
        _tensors(source, file)
        for name, file in files.items()
        if name.endswith(".safetensors") and "/" not in name
    ]
    sizes = sum((each.bytes for each in tensors), Counter[str]())
    figures = {figure: _figure(text, names) for figure, names in _NAMES.items()}
    heads, hidden = figures["heads"], figures["hidden_size"]
    if figures["kv_heads"] is None:
        figures["kv_heads"] = 1 if text.get("multi_query") is True else heads
    if figures["head_dim"] is None and heads and hidden:
        figures["head_dim"] = hidden // heads
    architectures = config.get("architectures")
    quantization = config.get("quantization_config")
    named = text.get("dtype") or text.get("torch_dtype")
    return ModelHeader(
        architectures=tuple(architectures) if isinstance(architectures, list) else (),
        model_type=_text(config.get("model_type")),
        dtype=_text(named) or (_dtype(sizes.most_common(1)[0][0]) if sizes else None),
        parameters=sum(each.elements for each in tensors),
        weight_bytes=sizes.total(),
        quantization=_text(quantization.get("quant_method"))
        if isinstance(quantization, dict)
        else None,
        **figures,
    )


def _config(source: Source, files: Mapping[str, StoredFile]) -> dict[str, Any]:
    file = files.get("config.json")
    if file is None:
        raise ModelError(f"{source} has no config.json: it is not a transformers model")
    if file.size > MOST_CONFIG_BYTES:
        raise ModelError(f"{source}: config.json has {file.size} bytes, it can't be one")
    return _object(source.read(file, 0, file.size), f"{source}: config.json")


def _tensors(source: Source, file: StoredFile) -> _Tensors:
    origin = f"{source}: {file.name}"
    start = source.read(file, 0, FIRST_READ_BYTES)
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if len(start) < LENGTH_BYTES or length > min(MOST_HEADER_BYTES, file.size - LENGTH_BYTES):
        raise ModelError(f"{origin} is no safetensors file or is cut short: fetch it again")
    end = LENGTH_BYTES + length
    if end > len(start):
        start += source.read(file, len(start), end - len(start))
    header = _object(start[LENGTH_BYTES:end], origin)
    elements, last, sizes = 0, 0, Counter[str]()
    try:
        for name, tensor in header.items():
            if name != "__metadata__":
                begin, finish = tensor["data_offsets"]
                elements += math.prod(tensor["shape"])
                sizes[tensor["dtype"]] += finish - begin
                last = max(last, finish)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{origin}: the safetensors header is corrupt; fetch it again") from error
    if end + last != file.size:
        raise ModelError(
            f"{origin} has {file.size} bytes where its header promises {end + last}: fetch it again"
        )
    return _Tensors(elements, sizes)


def _object(data: bytes, origin: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise ModelError(f"{origin} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{origin} is not a JSON object")
    return value


def _figure(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    found = (config.get(name) for name in names)
    return next((v for v in found if isinstance(v, int) and not isinstance(v, bool)), None)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _dtype(code: str) -> str:
    return _DTYPES.get(code, code.lower())
