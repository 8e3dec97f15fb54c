"""A random two-layer Llama, written without transformers: config.json and safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

VOCABULARY = 97
HIDDEN, WIDTH, HEADS, KV_HEADS, SIZE = 64, 80, 4, 2, 16


def write_tiny_llama(folder: Path, *, window: int | None = None, seed: int = 0) -> Path:
    """A Llama, or with a window a Mistral; 256 tokens of context, and no end token."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "llama" if window is None else "mistral",
        "architectures": ["LlamaForCausalLM" if window is None else "MistralForCausalLM"],
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": SIZE,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "eos_token_id": None,
        "bos_token_id": None,
        "torch_dtype": "float32",
        "sliding_window": window,
    }
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(seed)
    shapes = {"model.embed_tokens": (VOCABULARY, HIDDEN), "lm_head": (VOCABULARY, HIDDEN)}
    norms = ["model.norm"]
    for layer in range(2):
        name = f"model.layers.{layer}"
        shapes |= {
            f"{name}.self_attn.q_proj": (HEADS * SIZE, HIDDEN),
            f"{name}.self_attn.k_proj": (KV_HEADS * SIZE, HIDDEN),
            f"{name}.self_attn.v_proj": (KV_HEADS * SIZE, HIDDEN),
            f"{name}.self_attn.o_proj": (HIDDEN, HEADS * SIZE),
            f"{name}.mlp.gate_proj": (WIDTH, HIDDEN),
            f"{name}.mlp.up_proj": (WIDTH, HIDDEN),
            f"{name}.mlp.down_proj": (HIDDEN, WIDTH),
        }
        norms += [f"{name}.input_layernorm", f"{name}.post_attention_layernorm"]
    weights = {f"{name}.weight": torch.randn(shape) * 0.2 for name, shape in shapes.items()}
    weights |= {f"{name}.weight": torch.rand(HIDDEN) + 0.5 for name in norms}
    save_file(weights, str(folder / "model.safetensors"))
    return folder
