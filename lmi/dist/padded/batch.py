"""A batch under way: its rows, and one pass of all of them per step."""

from __future__ import annotations

import torch

from lmi.dist.padded.model import PaddedModel
from lmi.dist.padded.passes import Passes
from lmi.dist.padded.row import Row
from lmi.dist.sampling import Sampled, Sampler

# Prompt positions whose probabilities are computed at once: bounds the memory beside the logits.
_LOGPROB_CHUNK = 256


class Batch:
    """Rows that began together. Nothing is computed before the first step."""

    def __init__(self, model: PaddedModel, rows: list[Row]) -> None:
        self._model = model
        self._rows: list[Row | None] = [*rows]  # None: over
        self._passes: Passes | None = None

    @property
    def living(self) -> list[Row]:
        """The rows that are not over, in the order of the results of `step`."""
        return [row for row in self._rows if row is not None]

    def remove(self, row: Row) -> None:
        """A row is over."""
        self._rows[self._rows.index(row)] = None

    def step(self, sampler: Sampler) -> list[tuple[Row, Sampled]]:
        """One pass: the next token of each living row, of which there must be one."""
        logits = self._begin() if self._passes is None else self._go_on(self._passes)
        places = [place for place, row in enumerate(self._rows) if row is not None]
        if len(places) < len(self._rows):
            logits = logits[places]
        living = self.living
        self._force_ends(logits, living)
        sampled = sampler.sample(logits, [row.sequence for row in living])
        return list(zip(living, sampled, strict=True))

    def _begin(self) -> torch.Tensor:
        living = self.living
        wants_prompt = living[0].reads_alone
        passes = self._model.begin([row.source for row in living], all_logits=wants_prompt)
        logits, prompt = passes.forward_prompt() if wants_prompt else (passes.forward(), None)
        if prompt is not None:
            living[0].sequence.prompt_logprobs = _prompt_logprobs(prompt[0], living[0].source)
        self._passes = passes
        return logits

    def _go_on(self, passes: Passes) -> torch.Tensor:
        if self._model.trial.drops and None in self._rows:
            kept = [place for place, row in enumerate(self._rows) if row is not None]
            passes.keep(kept)
            self._rows = [self._rows[place] for place in kept]
        pad = self._model.pad
        passes.push([pad if row is None else row.sequence.tokens[-1] for row in self._rows])
        return passes.forward()

    def _force_ends(self, logits: torch.Tensor, living: list[Row]) -> None:
        """An answer that its length cuts off ends as the checkpoint wants (BART's forced EOS)."""
        token = self._model.forced_eos
        if token is None:
            return
        for row, values in zip(living, logits, strict=True):
            if row.room == 1:
                values.fill_(-torch.inf)
                values[token] = 0.0


def _prompt_logprobs(logits: torch.Tensor, source: tuple[int, ...]) -> list[float]:
    """Of each prompt token after the first; logits (prompt tokens, vocabulary)."""
    found: list[float] = []
    targets = torch.tensor(source[1:], device=logits.device)
    for first in range(0, len(targets), _LOGPROB_CHUNK):
        wanted = targets[first : first + _LOGPROB_CHUNK, None]
        chunk = torch.log_softmax(logits[first : first + len(wanted)].float(), dim=-1)
        found += chunk.gather(1, wanted)[:, 0].tolist()
    return found
