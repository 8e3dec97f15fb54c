"""Small model folders for tests of the model store: a config and safetensors files made by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "float16",
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 16,
    "max_position_embeddings": 64,
}
_WIDTHS = {"F16": 2, "BF16": 2, "F32": 4, "I32": 4}


def safetensors(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """A file that holds tensors of zeros: name to (dtype, shape)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + _WIDTHS[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


def model_files() -> dict[str, bytes]:
    """The files of a model in two shards, and of what else a repository has: name to content."""
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer.json": b"{}",
        "model-00001-of-00002.safetensors": safetensors({"a": ("F16", (16, 8))}),
        "model-00002-of-00002.safetensors": safetensors({"b": ("F16", (8, 8)), "c": ("F32", (8,))}),
        "pytorch_model.bin": b"pickle",
        "onnx/model.onnx": b"onnx",
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
