"""How far a model's logits are from a reference's: relative error, top-1 agreement, perplexity.

Logits are (tokens, vocabulary), of one window of text at a time: the row of a token holds the
scores of the token after it. All sums are float64 on the CPU, so that no window's size matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

Logits = Callable[[Sequence[int]], torch.Tensor]
"""A model: the ids of a window to its logits, (tokens, vocabulary)."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What a model's logits are worth beside a reference's, over the same windows.

    relative_error: ||logits - reference|| / ||reference||. top1: share of tokens, from 0 to 1,
    after which both find the same token likeliest. perplexity, reference_perplexity: of the
    windows' own text. tokens: rows of logits that were compared.
    """

    relative_error: float
    top1: float
    perplexity: float
    reference_perplexity: float
    tokens: int


class Comparison:
    """Adds up windows, so that only one window's logits are held at a time."""

    def __init__(self) -> None:
        self._difference = 0.0
        self._size = 0.0
        self._agreed = 0
        self._rows = 0
        self._loss = 0.0
        self._reference_loss = 0.0
        self._predicted = 0

    def add(self, ids: Sequence[int], logits: torch.Tensor, reference: torch.Tensor) -> None:
        """One window. Raises ValueError where the shapes differ or don't go with the ids."""
        if logits.shape != reference.shape or logits.dim() != 2 or len(ids) != logits.shape[0]:
            raise ValueError(
                f"{len(ids)} ids, logits {tuple(logits.shape)} and reference "
                f"{tuple(reference.shape)}: expected a row for each id in both"
            )
        got, want = _doubles(logits), _doubles(reference)
        self._difference += float((got - want).square().sum())
        self._size += float(want.square().sum())
        self._agreed += int((got.argmax(-1) == want.argmax(-1)).sum())
        self._rows += len(ids)
        self._loss += _loss(ids, got)
        self._reference_loss += _loss(ids, want)
        self._predicted += len(ids) - 1

    def result(self) -> Fidelity:
        """Of all windows so far. Raises ValueError where none had two tokens."""
        return Fidelity(
            relative_error=_ratio(self._difference, self._size),
            top1=self._agreed / max(1, self._rows),
            perplexity=_perplexity(self._loss, self._predicted),
            reference_perplexity=_perplexity(self._reference_loss, self._predicted),
            tokens=self._rows,
        )


def compare(model: Logits, reference: Logits, windows: Iterable[Sequence[int]]) -> Fidelity:
    """A model beside a reference, window by window."""
    found = Comparison()
    for ids in windows:
        found.add(ids, model(ids), reference(ids))
    return found.result()


def perplexity(model: Logits, windows: Iterable[Sequence[int]]) -> float:
    """exp of the mean loss, in nats, of each token but a window's first."""
    loss, predicted = 0.0, 0
    for ids in windows:
        loss += _loss(ids, _doubles(model(ids)))
        predicted += len(ids) - 1
    return _perplexity(loss, predicted)


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """||got - want|| / ||want||; infinite where `want` is 0 and `got` is not."""
    wanted = _doubles(want)
    difference = float((_doubles(got) - wanted).square().sum())
    return _ratio(difference, float(wanted.square().sum()))


def top1(got: torch.Tensor, want: torch.Tensor) -> float:
    """Share of rows, from 0 to 1, whose largest score is at the same place."""
    return float((got.argmax(-1) == want.argmax(-1)).double().mean())


def _doubles(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float64)


def _loss(ids: Sequence[int], logits: torch.Tensor) -> float:
    """The sum, in nats, over all tokens but the first."""
    if len(ids) < 2:
        return 0.0
    followers = torch.tensor(list(ids[1:]))
    return float(torch.nn.functional.cross_entropy(logits[:-1], followers, reduction="sum"))


def _perplexity(loss: float, predicted: int) -> float:
    if not predicted:
        raise ValueError("no window has two tokens: there is nothing to predict")
    mean = loss / predicted
    try:
        return math.exp(mean)
    except OverflowError:
        return math.inf


def _ratio(difference: float, size: float) -> float:
    """Of two sums of squares."""
    if size == 0.0:
        return 0.0 if difference == 0.0 else math.inf
    return math.sqrt(difference / size)
