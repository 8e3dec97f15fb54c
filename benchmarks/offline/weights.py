"""The models that are measured: shapes of two families, with random weights in either precision.

Written as checkpoints that every engine reads (config.json and safetensors; GGUF is made of them
for llama.cpp). No tokenizer: all engines here take ids and give ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

BYTES: Final = {"float32": 4, "bfloat16": 2}
SCALE: Final = 0.02  # of normally distributed weights, as transformers initialises them


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder's dimensions. The head is tied to the embedding."""

    name: str
    family: str
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    context: int
    qkv_bias: bool = False

    @property
    def head_size(self) -> int:
        """Numbers per head."""
        return self.hidden // self.heads

    @property
    def parameters(self) -> int:
        """Numbers in the checkpoint; each is read once per step (the embedding as the head)."""
        return sum([_product(shape) for _, shape in self.tensors()])

    @property
    def kv_numbers_per_token(self) -> int:
        """Keys and values of all layers."""
        return 2 * self.layers * self.kv_heads * self.head_size

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes, as transformers writes them."""
        kv = self.kv_heads * self.head_size
        yield "model.embed_tokens.weight", (self.vocabulary, self.hidden)
        for layer in range(self.layers):
            stem = f"model.layers.{layer}."
            yield stem + "input_layernorm.weight", (self.hidden,)
            for name, rows in (("q", self.hidden), ("k", kv), ("v", kv)):
                yield stem + f"self_attn.{name}_proj.weight", (rows, self.hidden)
                if self.qkv_bias:
                    yield stem + f"self_attn.{name}_proj.bias", (rows,)
            yield stem + "self_attn.o_proj.weight", (self.hidden, self.hidden)
            yield stem + "post_attention_layernorm.weight", (self.hidden,)
            yield stem + "mlp.gate_proj.weight", (self.intermediate, self.hidden)
            yield stem + "mlp.up_proj.weight", (self.intermediate, self.hidden)
            yield stem + "mlp.down_proj.weight", (self.hidden, self.intermediate)
        yield "model.norm.weight", (self.hidden,)

    def config(self, dtype: str) -> dict[str, Any]:
        """config.json."""
        return {
            "architectures": [
                {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[self.family]
            ],
            "model_type": self.family,
            "dtype": dtype,
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": self.context,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "tie_word_embeddings": True,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }


SHAPES: Final[Mapping[str, Shape]] = {
    shape.name: shape
    for shape in (
        # That of the reference measurements.
        Shape("llama-100m", "llama", 32_000, 768, 2048, 12, 12, 4, 2048),
        # The widths of Qwen2-0.5B in six layers: seven query heads per KV head, biases, wide MLP.
        Shape("qwen2-125m", "qwen2", 40_000, 896, 4864, 6, 14, 2, 2048, qkv_bias=True),
        # The first again, for long texts.
        Shape("llama-100m-16k", "llama", 32_000, 768, 2048, 12, 12, 4, 16_384),
        # Seconds on any machine.
        Shape("llama-tiny", "llama", 4_000, 256, 512, 4, 4, 2, 2048),
        Shape("qwen2-tiny", "qwen2", 4_000, 256, 512, 4, 4, 2, 2048, qkv_bias=True),
    )
}


def write(shape: Shape, dtype: str, home: Path, seed: int = 0) -> Path:
    """The checkpoint's folder in `home`; one that exists is used again. Both precisions hold the
    same random numbers, rounded."""
    folder = home / f"{shape.name}-{dtype}"
    if (folder / "config.json").exists():
        return folder

    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, size in shape.tensors():
        tensor = torch.ones(size)
        if "norm" not in name:  # those stay 1
            tensor.normal_(0.0, SCALE, generator=generator)
        tensors[name] = tensor.to(getattr(torch, dtype))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    # Last: it says that the folder is whole.
    (folder / "config.json").write_text(json.dumps(shape.config(dtype), indent=1) + "\n")
    return folder


def bytes_per_decoded_token(shape: Shape, dtype: str, context: float) -> float:
    """What one decode step of one request must read: all weights, and the KV cache of `context`
    tokens. Activations and what is written are left out: they stay in the processor's caches."""
    return BYTES[dtype] * (shape.parameters + shape.kv_numbers_per_token * context)


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
