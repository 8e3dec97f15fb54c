"""Folders as TensorRT-LLM, Triton, ModelOpt and Hugging Face's libraries write them, without
weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

LLAMA: Final[dict[str, Any]] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 16,
    "max_position_embeddings": 8192,
}
CHECKPOINT: Final[dict[str, Any]] = {
    "architecture": "LlamaForCausalLM",
    "dtype": "float16",
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 16,
    "max_position_embeddings": 8192,
    "quantization": {"quant_algo": "W4A16_AWQ", "kv_cache_quant_algo": "INT8"},
    "mapping": {"world_size": 4, "tp_size": 2, "pp_size": 2},
}
BUILD: Final[dict[str, Any]] = {
    "max_batch_size": 8,
    "max_input_len": 1024,
    "max_seq_len": 2048,
    "max_num_tokens": 4096,
    "max_beam_width": 1,
    "gather_context_logits": False,
}


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_engine(folder: Path, *, version: str = "1.2.1", ranks: int = 4, **build: Any) -> Path:
    config = {"version": version, "pretrained_config": CHECKPOINT, "build_config": BUILD | build}
    write_config(folder, config)
    for rank in range(ranks):
        (folder / f"rank{rank}.engine").write_bytes(b"engine")
    return folder


def parameter(name: str, value: str) -> str:
    return f'parameters: {{ key: "{name}" value: {{ string_value: "{value}" }} }}\n'


def write_triton(root: Path, tokenizer: str = "/models/llama", **parameters: str) -> Path:
    """A repository as tensorrtllm_backend's templates make it; the engine lies in `1`."""
    for step in ("ensemble", "preprocessing", "postprocessing", "tensorrt_llm"):
        (root / step / "1").mkdir(parents=True)
        (root / step / "config.pbtxt").write_text(f'name: "{step}"\nmax_batch_size: 8\n')
    text = parameter("tokenizer_dir", tokenizer)
    (root / "preprocessing" / "config.pbtxt").write_text(text)
    lines = [parameter(name, value) for name, value in parameters.items()]
    head = (
        'name: "tensorrt_llm"\nbackend: "tensorrtllm"\nmax_batch_size: ${triton_max_batch_size}\n'
    )
    (root / "tensorrt_llm" / "config.pbtxt").write_text(head + "".join(lines))
    write_engine(root / "tensorrt_llm" / "1")
    return root
