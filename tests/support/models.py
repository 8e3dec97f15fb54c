"""Tiny random models of each family, made on the fly: the same weights in every run.

Weights are drawn wide (`initializer_range`), so that the likeliest next token changes from position
to position instead of repeating for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
import transformers as tf

VOCAB: Final = 512
WINDOW: Final = 24  # tokens: shorter than most sequences of the tests

_SIZE: Final[dict[str, Any]] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GROUPED: Final[dict[str, Any]] = {**_SIZE, "intermediate_size": 128, "num_key_value_heads": 2}
_HEAD: Final[dict[str, Any]] = {**_GROUPED, "head_dim": 16}


def _falcon(**changes: Any) -> tf.FalconConfig:
    return tf.FalconConfig(**{**_SIZE, "alibi": False, "bias": False, **changes})


CONFIGS: Final[dict[str, Callable[[], tf.PreTrainedConfig]]] = {
    "llama": lambda: tf.LlamaConfig(**_GROUPED),
    "qwen2": lambda: tf.Qwen2Config(**_GROUPED),
    "qwen3": lambda: tf.Qwen3Config(**_HEAD),
    "mistral": lambda: tf.MistralConfig(**_HEAD, sliding_window=WINDOW),
    "mixtral": lambda: tf.MixtralConfig(**_HEAD, num_local_experts=4, sliding_window=None),
    "gpt2": lambda: tf.GPT2Config(**_SIZE),
    "gpt_neox": lambda: tf.GPTNeoXConfig(**_SIZE, intermediate_size=128),
    "gemma": lambda: tf.GemmaConfig(**_HEAD),
    # The caps are low, so that they bend the scores of a model this small.
    "gemma2": lambda: tf.Gemma2Config(
        **_HEAD,
        sliding_window=WINDOW,
        tie_word_embeddings=False,
        query_pre_attn_scalar=16,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=10.0,
    ),
    "gemma3": lambda: tf.Gemma3TextConfig(
        **_HEAD,
        tie_word_embeddings=False,
        sliding_window=WINDOW,
        query_pre_attn_scalar=16,
        sliding_window_pattern=2,
    ),
    "falcon_7b": lambda: _falcon(multi_query=True, new_decoder_architecture=False),
    "falcon_40b": lambda: _falcon(new_decoder_architecture=True, num_kv_heads=2),
    "falcon_rw": lambda: _falcon(
        alibi=True, multi_query=False, new_decoder_architecture=False, parallel_attn=False
    ),
    "gpt_oss": lambda: tf.GptOssConfig(
        **_HEAD,
        sliding_window=WINDOW,
        num_local_experts=4,
        num_experts_per_tok=2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    ),
    "phi3": lambda: tf.Phi3Config(**_GROUPED, sliding_window=WINDOW),
    "phi": lambda: tf.PhiConfig(**_GROUPED),
    "starcoder2": lambda: tf.Starcoder2Config(**_GROUPED, sliding_window=WINDOW),
    "gpt_bigcode": lambda: tf.GPTBigCodeConfig(**_SIZE, multi_query=True),
    "opt": lambda: tf.OPTConfig(
        **_SIZE, ffn_dim=128, word_embed_proj_dim=64, init_std=0.2, tie_word_embeddings=False
    ),
    "stablelm": lambda: tf.StableLmConfig(**_GROUPED),
    "gptj": lambda: tf.GPTJConfig(**_SIZE, rotary_dim=8),
    "codegen": lambda: tf.CodeGenConfig(**_SIZE, rotary_dim=8, n_ctx=256),
    "gpt_neo": lambda: tf.GPTNeoConfig(
        **_SIZE,
        intermediate_size=128,
        window_size=WINDOW,
        attention_types=[[["global", "local"], 2]],
    ),
    "bloom": lambda: tf.BloomConfig(**_SIZE, tie_word_embeddings=False),
    "mpt": lambda: tf.MptConfig(
        vocab_size=VOCAB,
        d_model=64,
        n_layers=4,
        n_heads=4,
        max_seq_len=256,
        expansion_ratio=2,
        initializer_range=0.2,
        eos_token_id=2,
    ),
}


def make_model(folder: Path, family: str, *, seed: int = 0) -> Path:
    """Write a model of `family` (a key of CONFIGS) in float32 to `folder`; returns the folder."""
    return save_random(folder, CONFIGS[family](), tf.AutoModelForCausalLM, seed=seed)


def save_random(folder: Path, config: tf.PreTrainedConfig, auto: Any, *, seed: int = 0) -> Path:
    """Write a random model of this configuration and auto class in float32 to `folder`."""
    torch.manual_seed(seed)
    model = auto.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            # Biases, norms and sinks start at 0 or 1, which would hide that one is forgotten.
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


def ragged_prompts(
    lengths: int = 8, each: int = 4, *, longest: int = 120, seed: int = 0
) -> list[tuple[int, ...]]:
    """`each` random prompts of each of some lengths from 1 to `longest`, shuffled; no end token."""
    generator = torch.Generator().manual_seed(seed)
    chosen = (torch.randperm(longest, generator=generator)[:lengths] + 1).tolist()
    prompts = [
        tuple(torch.randint(3, VOCAB, (length,), generator=generator).tolist())
        for length in chosen * each
    ]
    order = torch.randperm(len(prompts), generator=generator).tolist()
    return [prompts[index] for index in order]
