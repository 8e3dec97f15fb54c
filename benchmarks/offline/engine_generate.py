"""transformers' `generate` on padded batches as a subject: dynamic batching as servers do it.

All requests that wait when a batch begins, up to max_batch, form it. They are padded on the left to
the longest prompt and generate as many tokens as the longest answer needs; every answer is given
when the batch ends, cut to its own length. In a closed loop of as many clients as max_batch no
batch is ever short of requests, which is the best case of this method: a real server waits some
milliseconds more for a batch to fill.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from benchmarks.offline.loop import Ids, Piece
from benchmarks.offline.serve import Ready, Setting, serve

PAD = 0


class Padded:
    """A step is a whole batch."""

    def __init__(self, model: Any, max_batch: int) -> None:
        self._model = model
        self._max_batch = max_batch
        self._waiting: list[tuple[int, Ids, int]] = []

    def add(self, number: int, prompt: Ids, output: int) -> None:
        self._waiting.append((number, prompt, output))

    def step(self) -> Sequence[Piece]:
        batch, self._waiting = self._waiting[: self._max_batch], self._waiting[self._max_batch :]
        longest = max([len(prompt) for _, prompt, _ in batch])
        ids = torch.tensor([[PAD] * (longest - len(prompt)) + prompt for _, prompt, _ in batch])
        mask = torch.tensor(
            [[0] * (longest - len(prompt)) + [1] * len(prompt) for _, prompt, _ in batch]
        )
        clock = FirstStep()
        with torch.inference_mode():
            whole = self._model.generate(
                ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=max([output for _, _, output in batch]),
                eos_token_id=None,
                pad_token_id=PAD,
                logits_processor=transformers.LogitsProcessorList([clock]),
            )
        answers = whole[:, longest:].tolist()
        return [
            Piece(number, answer[:output], True, clock.at)
            for (number, _, output), answer in zip(batch, answers, strict=True)
        ]


class FirstStep(transformers.LogitsProcessor):
    """Notes when the first logits came."""

    def __init__(self) -> None:
        self.at: float | None = None

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.at is None:
            self.at = time.perf_counter()
        return scores


def load(setting: Setting) -> Ready:
    torch.set_num_threads(setting.threads)
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        setting.model, dtype=getattr(torch, setting.dtype), attn_implementation="sdpa"
    )
    model.eval()
    model.generation_config.eos_token_id = None
    facts = {"transformers": transformers.__version__, "torch": torch.__version__}
    return Ready(Padded(model, setting.max_batch), facts)


if __name__ == "__main__":
    serve(load)
