"""GGUF of a checkpoint of `weights`, in the precision that it has. Runs in llama.cpp's environment.

llama.cpp's rotary embedding of the Llama architecture pairs neighbouring numbers where transformers
pairs halves, so the rows of its query and key weights are put in that order.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np

NUMPY: Final[dict[str, Any]] = {"F32": np.dtype("<f4"), "BF16": np.dtype("<u2")}
TYPES = {"F32": gguf.GGMLQuantizationType.F32, "BF16": gguf.GGMLQuantizationType.BF16}
ROLES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOPS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}


def make_gguf(folder: Path) -> Path:
    """The file, in the checkpoint's folder; one that exists is used again."""
    path = folder / "model.gguf"
    if path.exists():
        return path
    config = json.loads((folder / "config.json").read_text())
    unfinished = path.with_suffix(".part")
    writer = gguf.GGUFWriter(unfinished, config["model_type"])
    _say_shape(writer, config)
    for name, kind, numbers in read_safetensors(folder / "model.safetensors"):
        new, kept = _renamed(name), kind
        if config["model_type"] == "llama" and ".q_proj" in name:
            numbers = _neighbours(numbers, config["num_attention_heads"])
        if config["model_type"] == "llama" and ".k_proj" in name:
            numbers = _neighbours(numbers, config["num_key_value_heads"])
        if numbers.ndim == 1 and kind == "BF16":  # it wants norms and biases in float32
            numbers, kept = (numbers.astype("<u4") << 16).view("<f4"), "F32"
        if kept == "BF16":
            writer.add_tensor(
                new,
                numbers.view(np.uint8),
                raw_shape=numbers.view(np.uint8).shape,
                raw_dtype=TYPES[kept],
            )
        else:
            writer.add_tensor(new, np.ascontiguousarray(numbers))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.rename(path)
    return path


def read_safetensors(path: Path) -> list[tuple[str, str, Any]]:
    """Names, types and numbers; bfloat16 as its 16 bits, which numpy can't read otherwise."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    found = []
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        dtype = NUMPY[entry["dtype"]]
        numbers = np.memmap(
            path, dtype, "r", offset=8 + length + first, shape=((end - first) // dtype.itemsize,)
        )
        found.append((name, entry["dtype"], np.asarray(numbers).reshape(entry["shape"])))
    return found


def _say_shape(writer: Any, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")


def _renamed(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in TOPS:
        return f"{TOPS[stem]}.{kind}"
    _, _, layer, role = stem.split(".", 3)
    return f"blk.{layer}.{ROLES[role]}.{kind}"


def _neighbours(numbers: Any, heads: int) -> Any:
    """Rows of each head from (half, pair) to (pair, half) order."""
    size = numbers.shape[0] // heads
    split = numbers.reshape(heads, 2, size // 2, *numbers.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(numbers.shape))
