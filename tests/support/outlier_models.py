"""Models with activation outliers that leave the function as it is (Xiao et al., 2022, has why real
models grow them): four channels of each norm a hundred times larger, and the columns of the linear
layers that read them a hundred times smaller.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file

FACTOR: Final = 100.0
CHANNELS: Final = 4

_QKV: Final = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_GATED: Final = ("mlp.gate_proj", "mlp.up_proj")
_LLAMA: Final = {"input_layernorm": _QKV, "post_attention_layernorm": _GATED}
_GEMMA: Final = {"input_layernorm": _QKV, "pre_feedforward_layernorm": _GATED}
_PARALLEL: Final = ("attention.query_key_value", "mlp.dense_h_to_4h")

# By model_type: what the layers' names begin with, and who reads each norm.
READERS: Final[dict[str, tuple[str, dict[str, tuple[str, ...]]]]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), ("model.layers", _LLAMA)),
    **dict.fromkeys(("gemma2", "gemma3_text"), ("model.layers", _GEMMA)),
    "gpt_neox": (
        "gpt_neox.layers",
        {"input_layernorm": _PARALLEL[:1], "post_attention_layernorm": _PARALLEL[1:]},
    ),
    "opt": (
        "model.decoder.layers",
        {"self_attn_layer_norm": _QKV, "final_layer_norm": ("fc1",)},
    ),
    "phi": ("model.layers", {"input_layernorm": (*_QKV, "mlp.fc1")}),
    "phi3": (
        "model.layers",
        {
            "input_layernorm": ("self_attn.qkv_proj",),
            "post_attention_layernorm": ("mlp.gate_up_proj",),
        },
    ),
    "starcoder2": (
        "model.layers",
        {"input_layernorm": _QKV, "post_attention_layernorm": ("mlp.c_fc",)},
    ),
    "bloom": (
        "transformer.h",
        {
            "input_layernorm": ("self_attention.query_key_value",),
            "post_attention_layernorm": ("mlp.dense_h_to_4h",),
        },
    ),
}


def plant_outliers(source: Path, target: Path, *, seed: int = 0) -> Path:
    """Write the model of one file in `source` to the new folder `target`, in float32, with
    outliers; returns `target`."""
    config = json.loads((source / "config.json").read_text())
    prefix, readers = READERS[config["model_type"]]
    offset = 1.0 if config["model_type"].startswith("gemma") else 0.0
    shutil.copytree(source, target)
    path = target / "model.safetensors"
    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    layers = {int(name.split(".")[prefix.count(".") + 1]) for name in tensors if prefix in name}
    generator = torch.Generator().manual_seed(seed)
    for layer in sorted(layers):
        for norm, linears in readers.items():
            gain = tensors[f"{prefix}.{layer}.{norm}.weight"]
            chosen = torch.randperm(gain.numel(), generator=generator)[:CHANNELS]
            gain[chosen] = (gain[chosen] + offset) * FACTOR - offset
            if f"{prefix}.{layer}.{norm}.bias" in tensors:
                tensors[f"{prefix}.{layer}.{norm}.bias"][chosen] *= FACTOR
            for linear in linears:
                tensors[f"{prefix}.{layer}.{linear}.weight"][:, chosen] /= FACTOR
    save_file(tensors, path, metadata={"format": "pt"})
    config.pop("torch_dtype", None)
    (target / "config.json").write_text(json.dumps({**config, "dtype": "float32"}))
    return target
