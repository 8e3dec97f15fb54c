"""How long prompts and answers may be. Pure arithmetic over a model's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from lmi.dist.config import DistConfig

# The names that the number of positions has in config.json, in the order they are asked.
_BOTH: Final = ("max_position_embeddings", "max_seq_len", "seq_length", "n_positions")
_ENCODER: Final = ("max_encoder_position_embeddings", *_BOTH)
_DECODER: Final = ("max_decoder_position_embeddings", *_BOTH)
_DEFAULT: Final = 2048  # tokens, for models without a limit (states, relative positions)


@dataclass(frozen=True, slots=True)
class Limits:
    """In tokens. context: for a decoder, prompt and answer together; for an encoder-decoder model,
    the prompt and one more. answer: ids that the decoder may hold."""

    context: int
    answer: int


def limits_of(model_config: Any, config: DistConfig) -> Limits:
    """What the model and the configuration allow. Raises ConfigError for more than the model has.

    A model without positions of its own holds as much as is wished.
    """
    if not model_config.is_encoder_decoder:
        length = _positions(model_config.get_text_config(decoder=True), _DECODER)
        context = _within(config, length)
        return Limits(context, context)
    read = _positions(model_config.get_text_config(encoder=True), _ENCODER)
    written = _positions(model_config.get_text_config(decoder=True), _DECODER)
    context = _within(config, read)
    answer = config.max_model_len or written or _DEFAULT
    return Limits(context, min(answer, written or answer))


def _within(config: DistConfig, length: int | None) -> int:
    wanted = config.max_model_len
    if wanted is not None and length is not None and wanted > length:
        raise config.error("max_model_len", f"the model holds at most {length} tokens")
    return wanted or length or _DEFAULT


def _positions(model_config: Any, names: tuple[str, ...]) -> int | None:
    values = (getattr(model_config, name, None) for name in names)
    return next((value for value in values if isinstance(value, int) and value > 0), None)
