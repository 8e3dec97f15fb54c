"""Rank 0 samples, the followers take what it sampled.

The logits of two ranks may differ in their last bits, and the seeds of unseeded requests differ
altogether: a rank that chose for itself would soon compute something else.
"""

from __future__ import annotations

import torch

from lmi.dist.parallel.line import Line
from lmi.dist.parallel.turns import decode_choices, encode_choices
from lmi.dist.sampling import Picker, Sampled, Sampler
from lmi.dist.sequence import Sequence


class LeadingSampler(Sampler):
    """Samples, and tells the followers."""

    def __init__(self, line: Line, picker: Picker | None) -> None:
        super().__init__(picker)
        self._line = line

    def sample(self, logits: torch.Tensor, sequences: list[Sequence]) -> list[Sampled]:
        """See `Sampler`. Raises EngineDead too."""
        sampled = super().sample(logits, sequences)
        keys = [sequence.key for sequence in sequences]
        self._line.broadcast(encode_choices(keys, [result.token for result in sampled]))
        return sampled


class FollowingSampler(Sampler):
    """Takes what rank 0 sampled; log-probabilities stay there."""

    def __init__(self, line: Line, picker: Picker | None) -> None:
        super().__init__(picker)
        self._line = line

    def sample(self, logits: torch.Tensor, sequences: list[Sequence]) -> list[Sampled]:
        """See `Sampler`. Raises EngineDead too."""
        keys = [sequence.key for sequence in sequences]
        tokens = decode_choices(self._line.broadcast(None), keys)
        return [Sampled(token) for token in tokens]
