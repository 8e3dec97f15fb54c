"""From logits to tokens: vectorised over the batch, each row a function of its own request only.

A row's result never depends on the rows beside it (apart from the rounding of the logits), so a
seeded request gets the same tokens alone and in a crowd. Sampling inverts the cumulative
distribution in the order of token ids, not of probability: logits that are nearly equal may swap
their ranks from batch to batch, and would swap their tokens with them.

Order, as in transformers: end tokens hidden until min_new_tokens, repetition penalty, presence and
frequency penalty, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

from lmi.dist.cumulative import invert
from lmi.dist.penalties import Penalties
from lmi.dist.sequence import Sequence, is_greedy, is_penalised
from lmi.dist.truncation import is_truncated, truncate


class Sampled(NamedTuple):
    """What one row gave. token is None where the logits held no finite maximum (NaN or inf)."""

    token: int | None
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Picker(Protocol):
    """The part of `lmi.dist.kernels.base.Kernels` that chooses tokens."""

    def argmax(self, logits: torch.Tensor) -> torch.Tensor:
        """(rows, vocabulary) -> (rows) int64; -1 without a finite maximum."""

    def draw(
        self,
        logits: torch.Tensor,
        temperature: list[float],
        uniform: list[float],
    ) -> torch.Tensor:
        """(rows, vocabulary) -> (rows) int64, by the inverse of the cumulative softmax."""


class PlainPicker:
    """In torch, for models that bring no kernels of ours."""

    def argmax(self, logits: torch.Tensor) -> torch.Tensor:
        """See `Picker`."""
        if logits.device.type == "cpu":  # numpy's is vectorised
            array = logits.float().numpy()
            tokens = torch.from_numpy(array.argmax(axis=-1))
        else:
            tokens = logits.argmax(dim=-1)
        best = logits.gather(1, tokens[:, None])[:, 0]
        return torch.where(torch.isfinite(best), tokens, -1)

    def draw(
        self,
        logits: torch.Tensor,
        temperature: list[float],
        uniform: list[float],
    ) -> torch.Tensor:
        """See `Picker`."""
        return invert(weights_of(logits, temperature), uniform)


class Sampler:
    """Chooses one token per row; keeps the penalties' token counts of living sequences."""

    def __init__(self, picker: Picker | None = None) -> None:
        self._picker = picker or PlainPicker()
        self._penalties: dict[tuple[int, int], Penalties] = {}

    def forget(self, sequence: Sequence) -> None:
        """Drop what is kept for a sequence that ended."""
        self._penalties.pop(sequence.key, None)

    def sample(self, logits: torch.Tensor, sequences: list[Sequence]) -> list[Sampled]:
        """logits (rows, vocabulary) of any float dtype, changed in place -> one result per row.

        sequences: of each row. One that stands there several times in a row guessed its next tokens
        (`Plan.rows`): its further rows count as further tokens of its answer.
        """
        if all([sequence.plain for sequence in sequences]):
            return self._largest(logits)
        logits = logits.float()
        places = _places(sequences)
        details = [i for i, s in enumerate(sequences) if s.request.logprobs is not None]
        raw = torch.log_softmax(logits[details], dim=-1) if details else None
        self._adjust(logits, sequences, places)
        results = self._largest(logits)
        self._draw(logits, sequences, places, results)
        if raw is not None:
            _add_logprobs(results, raw, details, sequences)
        return results

    def _largest(self, logits: torch.Tensor) -> list[Sampled]:
        return [
            Sampled(token if token >= 0 else None) for token in self._picker.argmax(logits).tolist()
        ]

    def _adjust(self, logits: torch.Tensor, sequences: list[Sequence], places: list[int]) -> None:
        for row, sequence in enumerate(sequences):
            request = sequence.request
            if is_penalised(request):
                penalties = self._penalties.get(sequence.key)
                if penalties is None:
                    penalties = self._penalties[sequence.key] = Penalties(request)
                penalties.apply(logits[row], sequence.tokens)
            if places[row] < request.min_new_tokens and sequence.end_ids:
                logits[row, list(sequence.end_ids)] = -torch.inf

    def _draw(
        self,
        logits: torch.Tensor,
        sequences: list[Sequence],
        places: list[int],
        results: list[Sampled],
    ) -> None:
        """Put sampled tokens in the place of the largest, where they are wanted."""
        whole: list[int] = []
        cut: list[int] = []
        for row, sequence in enumerate(sequences):
            if not is_greedy(sequence.request) and results[row].token is not None:
                (cut if is_truncated(sequence.request) else whole).append(row)
        for rows, truncated in ((whole, False), (cut, True)):
            if not rows:
                continue
            picked = logits if len(rows) == len(sequences) else logits[rows]
            heat = [sequences[row].request.temperature for row in rows]
            uniform = [sequences[row].uniform(places[row]) for row in rows]
            if truncated:
                requests = [sequences[row].request for row in rows]
                tokens = invert(truncate(weights_of(picked, heat), requests), uniform)
            else:
                tokens = self._picker.draw(picked, heat, uniform)
            for row, token in zip(rows, tokens.tolist(), strict=True):
                results[row] = Sampled(token)


def _places(sequences: list[Sequence]) -> list[int]:
    """Of each row, the number of the answer's token that it decides, from 0."""
    places: list[int] = []
    before = None
    for sequence in sequences:
        if sequence is before:
            places.append(places[-1] + 1)
        else:
            places.append(len(sequence.tokens) - sequence.prompt_len)
        before = sequence
    return places


def weights_of(logits: torch.Tensor, temperature: list[float]) -> torch.Tensor:
    """(rows, vocabulary) float32 in proportion to softmax(logits / temperature), the largest 1."""
    heat = torch.tensor(temperature, dtype=torch.float32, device=logits.device)
    # The largest logit becomes 0 first: a small temperature can't overflow then.
    shifted = logits.float() - logits.float().amax(dim=-1, keepdim=True)
    return shifted.div_(heat[:, None]).exp_()


def _add_logprobs(
    results: list[Sampled], raw: torch.Tensor, rows: list[int], sequences: list[Sequence]
) -> None:
    """Fill in logprob and top of the rows that asked; raw (len(rows), vocabulary)."""
    counts = [sequences[row].request.logprobs or 0 for row in rows]
    most = torch.topk(raw, max(counts), dim=-1)
    tokens = [results[row].token or 0 for row in rows]
    chosen = raw.gather(1, torch.tensor(tokens, device=raw.device)[:, None])[:, 0].tolist()
    listed = zip(rows, counts, chosen, most.indices.tolist(), most.values.tolist(), strict=True)
    for row, count, logprob, ids, values in listed:
        token = results[row].token
        if token is not None:
            top = tuple(zip(ids[:count], values[:count], strict=True))
            results[row] = Sampled(token, logprob, top)
