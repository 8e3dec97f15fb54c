"""Which part of a layer a rank computes (Megatron-LM: Shoeybi et al., 2019).

Query, key, value, gate and up are split by their outputs (whole heads), the two that follow by
their inputs, so that one sum over the ranks ends each half of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmi.core import ModelError
from lmi.dist.decoder.config import DecoderConfig


@dataclass(frozen=True, slots=True)
class Shard:
    """Rank `rank` of `size`."""

    rank: int = 0
    size: int = 1

    def part(self, count: int, what: str) -> tuple[int, int]:
        """[start, stop) of `count` things that every rank has as many of."""
        if count % self.size:
            raise ModelError(f"{count} {what} can't be divided among {self.size} ranks")
        each = count // self.size
        return self.rank * each, (self.rank + 1) * each


def splits_vocabulary(config: DecoderConfig, shard: Shard) -> bool:
    """Whether the output layer is split; else every rank computes all of it."""
    return shard.size > 1 and config.vocab_size % shard.size == 0
