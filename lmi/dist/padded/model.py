"""A model that the fallback can run, from its folder; what it can't run is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers import GenerationConfig, PreTrainedModel

from lmi.core import ModelError
from lmi.dist.classes import generating_class
from lmi.dist.config import DistConfig
from lmi.dist.device import choose_device, choose_dtype
from lmi.dist.loader import (
    Progress,
    check_files,
    end_ids,
    parse_model_config,
    read_weights,
    vocabulary,
)
from lmi.dist.padded.limits import Limits, limits_of
from lmi.dist.padded.passes import Passes, prepare, takes_mask
from lmi.dist.padded.trial import Trial, try_out

# What a checkpoint's generation_config.json asks of every answer, and is done. What it suggests for
# sampling is a request's own matter.
_HONOURED: Final = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
    "sequence_bias",
    "no_repeat_ngram_size",
)
# What it may ask for that is not done, with the values that ask for nothing.
_NOT_DONE: Final[dict[str, tuple[Any, ...]]] = {
    "num_beams": (None, 1),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "guidance_scale": (None, 1.0),
    "penalty_alpha": (None,),
}

# Longer than any answer: each row ends by its own count, not by transformers'.
_NO_LIMIT: Final = 1 << 30


@dataclass(frozen=True, slots=True, eq=False)
class PaddedModel:
    """A model on its device. forced_eos: what an answer that is cut off must end with, or None.
    ignored: settings of the checkpoint that are not done. trial: how it may be batched."""

    model: PreTrainedModel
    generation: GenerationConfig
    pad: int
    device: torch.device
    dtype: torch.dtype
    vocab_size: int
    eos_ids: frozenset[int]
    forced_eos: int | None
    limits: Limits
    ignored: tuple[str, ...]
    trial: Trial

    @property
    def encodes(self) -> bool:
        """Whether an encoder reads the prompt (T5, BART)."""
        return bool(self.model.config.is_encoder_decoder)

    def begin(self, sources: Sequence[Sequence[int]], *, all_logits: bool = False) -> Passes:
        """A batch of prompts, ready for its first pass."""
        return prepare(self.model, self.generation, sources, pad=self.pad, all_logits=all_logits)


def load(config: DistConfig, progress: Progress) -> PaddedModel:
    """Raises ConfigError or ModelError; what does not generate text before its weights are read."""
    progress("read config", 0, 1)
    model_config = parse_model_config(config)
    auto = generating_class(model_config, config)
    check_files(config.model)
    limits = limits_of(model_config, config)
    progress("read config", 1, 1)
    device = choose_device(config)
    text_config = model_config.get_text_config(decoder=True)
    dtype = choose_dtype(config, device, getattr(text_config, "dtype", None))
    total = sum(path.stat().st_size for path in config.model.glob("*.safetensors"))
    progress("load weights", 0, total)
    model = read_weights(config, model_config, dtype, auto, None)
    model = model.to(device).eval().requires_grad_(False)
    progress("load weights", total, total)
    vocab_size = vocabulary(model, text_config)
    eos_ids = end_ids(config.model, model_config, text_config)
    asked = model.generation_config
    generation, pad = _generation(asked, vocab_size, eos_ids)
    model.generation_config = generation  # or `generate` would fill in the rest from what was asked
    progress("warm up", 0, 1)
    try:
        trial = try_out(
            lambda sources: prepare(model, generation, sources, pad=pad),
            vocab_size=vocab_size,
            dtype=dtype,
            takes_mask=takes_mask(model),
        )
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        # Whatever a model class does that transformers' own loop could not drive either.
        kind = model_config.model_type
        raise ModelError(
            f"{config.model}: {kind} can't generate: a trial failed: {type(e).__name__}: {e}"
        ) from e
    progress("warm up", 1, 1)
    return PaddedModel(
        model=model,
        generation=generation,
        pad=pad,
        device=device,
        dtype=dtype,
        vocab_size=vocab_size,
        eos_ids=eos_ids,
        forced_eos=_first(asked.forced_eos_token_id),
        limits=limits,
        ignored=tuple(
            f"{name}={getattr(asked, name)}"
            for name, neutral in _NOT_DONE.items()
            if getattr(asked, name, None) not in neutral
        ),
        trial=trial,
    )


def _generation(
    asked: GenerationConfig, vocab_size: int, eos_ids: frozenset[int]
) -> tuple[GenerationConfig, int]:
    """What `generate` prepares with, and the id that stands for padding."""
    honoured = {
        name: value for name in _HONOURED if (value := getattr(asked, name, None)) is not None
    }
    pad = _first(honoured.get("pad_token_id"))
    if pad is None or not 0 <= pad < vocab_size:
        pad = min(eos_ids, default=0)
    honoured["pad_token_id"] = pad
    generation = GenerationConfig(**honoured, max_new_tokens=_NO_LIMIT, do_sample=False)
    return generation, pad


def _first(value: int | list[int] | None) -> int | None:
    return value[0] if isinstance(value, list) else value
