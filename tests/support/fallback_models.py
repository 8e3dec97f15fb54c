"""Tiny random models that only the fallback can run: encoder-decoder, and states that are no K and
V. The same weights in every run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import transformers as tf

from tests.support.models import VOCAB, save_random

_IDS: Final[dict[str, Any]] = {
    "vocab_size": VOCAB,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_SMALL: Final[dict[str, Any]] = {
    **_IDS,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "initializer_range": 0.2,
}

ENCODERS: Final[dict[str, Callable[[], tf.PreTrainedConfig]]] = {
    "t5": lambda: tf.T5Config(
        vocab_size=VOCAB,
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
        initializer_factor=4.0,
    ),
    "bart": lambda: tf.BartConfig(
        **_IDS,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_position_embeddings=128,
        init_std=0.3,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    ),
}
DECODERS: Final[dict[str, Callable[[], tf.PreTrainedConfig]]] = {
    "mamba": lambda: tf.MambaConfig(**_SMALL, state_size=8),
    # Windows and recurrent states, kept in the modules themselves.
    "recurrent_gemma": lambda: tf.RecurrentGemmaConfig(
        **_SMALL,
        num_attention_heads=4,
        intermediate_size=128,
        lru_width=64,
        attention_window_size=32,
    ),
    "rwkv": lambda: tf.RwkvConfig(**_SMALL, attention_hidden_size=64),
    # Declares the attention interface, but half of its layers are convolutions.
    "lfm2": lambda: tf.Lfm2Config(
        **_SMALL,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention", "conv"],
    ),
}


def make_fallback_model(folder: Path, family: str) -> Path:
    """Write a model of `family` (a key of ENCODERS or DECODERS) to `folder`; returns the folder."""
    if family in ENCODERS:
        return save_random(folder, ENCODERS[family](), tf.AutoModelForSeq2SeqLM)
    return save_random(folder, DECODERS[family](), tf.AutoModelForCausalLM)
