"""One padded batch through a model: transformers prepares it, we step it.

`generate` is asked to prepare everything that this model's generation needs (encoder outputs,
decoder start, cache, masks, the checkpoint's logits processors) and to hand it over instead of
looping: that is its `custom_generate`. Each pass then does what its own loop does.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel

from lmi.dist.padded.state import can_select, select, size


class Passes:
    """The state of one batch. Each pass gives each row's logits; each token is pushed before the
    next."""

    def __init__(self, model: PreTrainedModel, prepared: dict[str, Any]) -> None:
        self._model = model
        self._ids: torch.Tensor = prepared.pop("input_ids")
        self._processors: LogitsProcessorList = prepared.pop("logits_processor")
        self._arguments: dict[str, Any] = prepared.pop("model_kwargs")
        self._first = True

    @property
    def start(self) -> list[int]:
        """The ids that the decoder of each row begins with."""
        found: list[int] = self._ids[0].tolist()
        return found

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return int(self._ids.shape[0])

    @property
    def state_bytes(self) -> int:
        """What the batch holds between two passes."""
        return size(self._arguments)

    def forward(self) -> torch.Tensor:
        """The logits of each row's next token, (rows, vocabulary) float32, after what the
        checkpoint forbids or forces."""
        return self._next_logits(self._pass())

    def forward_prompt(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The first pass: `forward`, and the logits of all prompt positions (rows, tokens,
        vocabulary), for a batch prepared with `all_logits`."""
        logits = self._pass()
        return self._next_logits(logits), logits

    def _next_logits(self, logits: torch.Tensor) -> torch.Tensor:
        last = logits[:, -1].to(torch.float32, copy=True)
        processed: torch.Tensor = self._processors(self._ids, last)
        return processed

    def _pass(self) -> torch.Tensor:
        """One forward pass: (rows, positions, vocabulary)."""
        step = 1 if self._arguments["use_cache"] and not self._first else None
        inputs = self._model.prepare_inputs_for_generation(
            self._ids,
            next_sequence_length=step,
            is_first_iteration=self._first,
            **self._arguments,
        )
        out = self._model(**inputs, return_dict=True)
        self._first = False
        self._arguments = self._model._update_model_kwargs_for_generation(
            out, self._arguments, is_encoder_decoder=self._model.config.is_encoder_decoder
        )
        logits: torch.Tensor = out.logits
        return logits

    def push(self, tokens: Sequence[int]) -> None:
        """Append one token to each row."""
        column = torch.tensor(tokens, device=self._ids.device)[:, None]
        self._ids = torch.cat([self._ids, column], dim=1)

    @property
    def can_drop(self) -> bool:
        """Whether `keep` is possible."""
        return can_select(self._selectable, self.rows)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        kept = torch.tensor(rows, device=self._ids.device)
        self._ids = self._ids.index_select(0, kept)
        self._arguments.update(select(self._selectable, kept))

    @property
    def _selectable(self) -> dict[str, Any]:
        return {name: value for name, value in self._arguments.items() if name != "logits_to_keep"}


def prepare(
    model: PreTrainedModel,
    generation: GenerationConfig,
    sources: Sequence[Sequence[int]],
    *,
    pad: int,
    all_logits: bool = False,
) -> Passes:
    """A batch of prompts, ready for its first pass.

    Prompts of unequal length are padded: on the left for a decoder, so that all answers begin in
    one column; on the right for an encoder, which knows positions by their place.
    """
    width = max(map(len, sources))
    left = not model.config.is_encoder_decoder
    ids, mask = [], []
    for source in sources:
        gap = width - len(source)
        filler, ones, zeros = [pad] * gap, [1] * len(source), [0] * gap
        ids.append(filler + list(source) if left else list(source) + filler)
        mask.append(zeros + ones if left else ones + zeros)
    arguments: dict[str, Any] = {}
    if takes_mask(model):
        arguments["attention_mask"] = torch.tensor(mask, device=model.device)
    if all_logits and "logits_to_keep" in inspect.signature(model.forward).parameters:
        arguments["logits_to_keep"] = 0  # which means all
    prepared: dict[str, Any] = model.generate(
        torch.tensor(ids, device=model.device),
        generation_config=generation,
        custom_generate=_hand_over,
        **arguments,
    )
    return Passes(model, prepared)


def takes_mask(model: PreTrainedModel) -> bool:
    """Whether the model can be told what is padding."""
    return (
        model.config.is_encoder_decoder
        or "attention_mask" in inspect.signature(model.forward).parameters
    )


def _hand_over(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: Any,
    generation_config: GenerationConfig,
    **model_kwargs: Any,
) -> dict[str, Any]:
    """In place of transformers' decoding loop: give what it would start with."""
    return {
        "input_ids": input_ids,
        "logits_processor": logits_processor,
        "model_kwargs": model_kwargs,
    }
