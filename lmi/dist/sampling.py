"""From logits to tokens: vectorised over the batch, each row a function of its own request only.

A row's result never depends on the rows beside it (apart from the rounding of the logits), so a
seeded request gets the same tokens alone and in a crowd. Sampling inverts the cumulative
distribution in the order of token ids, not of probability: logits that are nearly equal may swap
their ranks from batch to batch, and would swap their tokens with them.

Order, as in transformers: end tokens hidden until min_new_tokens, repetition penalty, presence and
frequency penalty, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch

from lmi.dist.penalties import Penalties
from lmi.dist.sequence import Sequence, is_greedy, is_penalised

# Sizes of the candidate set that are tried before all of the vocabulary is sorted.
CANDIDATES: Final = (64, 1024)


class Sampled(NamedTuple):
    """What one row gave. token is None where the logits held no finite maximum (NaN or inf)."""

    token: int | None
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses one token per row; keeps the penalties' token counts of living sequences."""

    def __init__(self) -> None:
        self._penalties: dict[tuple[int, int], Penalties] = {}

    def forget(self, sequence: Sequence) -> None:
        """Drop what is kept for a sequence that ended."""
        self._penalties.pop(sequence.key, None)

    def sample(self, logits: torch.Tensor, sequences: list[Sequence]) -> list[Sampled]:
        """logits (rows, vocabulary) of any float dtype, changed in place -> one result per row."""
        if all([sequence.plain for sequence in sequences]):
            return _largest(logits)
        logits = logits.float()
        details = self._logprob_rows(sequences)
        raw = torch.log_softmax(logits[details], dim=-1) if details else None
        self._adjust(logits, sequences)
        results = _largest(logits)
        drawn = [
            row
            for row, sequence in enumerate(sequences)
            if results[row].token is not None and not is_greedy(sequence.request)
        ]
        if drawn:
            for row, token in zip(drawn, _draw(logits, sequences, drawn), strict=True):
                results[row] = Sampled(token)
        if raw is not None:
            _add_logprobs(results, raw, details, sequences)
        return results

    @staticmethod
    def _logprob_rows(sequences: list[Sequence]) -> list[int]:
        return [i for i, s in enumerate(sequences) if s.request.logprobs is not None]

    def _adjust(self, logits: torch.Tensor, sequences: list[Sequence]) -> None:
        for row, sequence in enumerate(sequences):
            request = sequence.request
            if is_penalised(request):
                penalties = self._penalties.get(sequence.key)
                if penalties is None:
                    penalties = self._penalties[sequence.key] = Penalties(request)
                penalties.apply(logits[row], sequence.tokens)
            if len(sequence.tokens) - sequence.prompt_len < request.min_new_tokens:
                ends = sequence.end_ids
                if ends:
                    logits[row, list(ends)] = -torch.inf


def _largest(logits: torch.Tensor) -> list[Sampled]:
    """The token of each row's largest logit."""
    best, tokens = logits.max(dim=-1)
    finite = torch.isfinite(best).tolist()
    return [
        Sampled(token if fine else None)
        for token, fine in zip(tokens.tolist(), finite, strict=True)
    ]


def _draw(logits: torch.Tensor, sequences: list[Sequence], rows: list[int]) -> list[int]:
    """One sampled token per row."""
    tokens: dict[int, int] = {}
    for size, members in _by_candidates(sequences, rows, logits.shape[1]).items():
        scaled = _scaled(logits, sequences, members)
        if size == 0:
            probabilities = torch.softmax(scaled, dim=-1)
            kept = _min_p(probabilities, sequences, members)
            tokens.update(zip(members, _invert(kept, None, sequences, members), strict=True))
            continue
        tokens.update(_draw_truncated(scaled, sequences, members, size))
    return [tokens[row] for row in rows]


def _by_candidates(
    sequences: list[Sequence], rows: list[int], vocabulary: int
) -> dict[int, list[int]]:
    """Rows by the number of candidates that their own parameters need; 0 is no truncation."""
    groups: dict[int, list[int]] = {}
    for row in rows:
        request = sequences[row].request
        if request.top_k == 0 and request.top_p >= 1.0:
            size = 0
        else:
            size = _candidates(request.top_k or CANDIDATES[0], vocabulary)
        groups.setdefault(size, []).append(row)
    return groups


def _candidates(wanted: int, vocabulary: int) -> int:
    """The smallest candidate set that holds `wanted` tokens."""
    return next((size for size in CANDIDATES if wanted <= size < vocabulary), vocabulary)


def _scaled(logits: torch.Tensor, sequences: list[Sequence], rows: list[int]) -> torch.Tensor:
    temperatures = [sequences[row].request.temperature for row in rows]
    scale = torch.tensor(temperatures, dtype=torch.float32, device=logits.device)
    picked = logits[rows]
    # The largest logit becomes 0 first: a small temperature can't overflow then.
    return (picked - picked.amax(dim=-1, keepdim=True)) / scale[:, None]


def _draw_truncated(
    scaled: torch.Tensor, sequences: list[Sequence], rows: list[int], size: int
) -> dict[int, int]:
    """Draw among the `size` largest; rows whose top-p reaches beyond them get a larger set."""
    values, ids = torch.topk(scaled, size, dim=-1)
    device = scaled.device
    requests = [sequences[row].request for row in rows]
    top_k = torch.tensor([r.top_k or scaled.shape[1] for r in requests], device=device)
    top_p = torch.tensor([r.top_p for r in requests], dtype=torch.float64, device=device)
    outside = torch.arange(size, device=device)[None] >= top_k[:, None]
    values = values.masked_fill(outside, -torch.inf)
    unlimited = torch.tensor([r.top_k == 0 for r in requests], device=device)[:, None]
    total = torch.where(
        unlimited,
        torch.logsumexp(scaled.double(), dim=-1, keepdim=True),
        torch.logsumexp(values.double(), dim=-1, keepdim=True),
    )
    probabilities = torch.exp(values.double() - total)
    cumulative = probabilities.cumsum(dim=-1)
    short = (unlimited[:, 0] & (cumulative[:, -1] < top_p)).tolist()
    if size < scaled.shape[1] and any(short):
        beyond = [i for i, flag in enumerate(short) if flag]
        within = [i for i, flag in enumerate(short) if not flag]
        larger = _candidates(size + 1, scaled.shape[1])
        tokens = _draw_truncated(scaled[beyond], sequences, [rows[i] for i in beyond], larger)
        if within:
            tokens |= _draw_truncated(scaled[within], sequences, [rows[i] for i in within], size)
        return tokens
    # A token stays while the mass before it is below top_p: the first always does.
    probabilities = probabilities.masked_fill(cumulative - probabilities >= top_p[:, None], 0.0)
    kept = _min_p(probabilities, sequences, rows)
    order = ids.argsort(dim=-1)
    drawn = _invert(kept.gather(1, order), ids.gather(1, order), sequences, rows)
    return dict(zip(rows, drawn, strict=True))


def _min_p(probabilities: torch.Tensor, sequences: list[Sequence], rows: list[int]) -> torch.Tensor:
    limits = [sequences[row].request.min_p for row in rows]
    if not any(limits):
        return probabilities
    share = torch.tensor(limits, dtype=probabilities.dtype, device=probabilities.device)
    floor = probabilities.amax(dim=-1, keepdim=True) * share[:, None]
    return probabilities.masked_fill(probabilities < floor, 0.0)


def _invert(
    probabilities: torch.Tensor,
    ids: torch.Tensor | None,
    sequences: list[Sequence],
    rows: list[int],
) -> list[int]:
    """The token at which the cumulative distribution passes the row's own random number."""
    cumulative = probabilities.double().cumsum(dim=-1)
    uniform = np.array([sequences[row].random.random() for row in rows])
    target = torch.from_numpy(uniform).to(cumulative.device)[:, None] * cumulative[:, -1:]
    # right=True: a token of probability 0 can't be hit, not even by a target of exactly 0.
    index = torch.searchsorted(cumulative, target, right=True)
    last = (cumulative < cumulative[:, -1:]).sum(dim=-1, keepdim=True)
    index = torch.minimum(index, last)
    tokens = index if ids is None else ids.gather(1, index)
    found: list[int] = tokens[:, 0].tolist()
    return found


def _add_logprobs(
    results: list[Sampled], raw: torch.Tensor, rows: list[int], sequences: list[Sequence]
) -> None:
    """Fill in logprob and top of the rows that asked; raw (len(rows), vocabulary)."""
    most = max(sequences[row].request.logprobs or 0 for row in rows)
    values, ids = torch.topk(raw, most, dim=-1)
    for index, row in enumerate(rows):
        token = results[row].token
        if token is None:
            continue
        count = sequences[row].request.logprobs or 0
        top = tuple(zip(ids[index, :count].tolist(), values[index, :count].tolist(), strict=True))
        results[row] = Sampled(token, float(raw[index, token]), top)
