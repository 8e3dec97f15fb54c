"""One choice in a padded batch, and what its model reads before it answers."""

from __future__ import annotations

from dataclasses import dataclass

from lmi.dist.sequence import Sequence


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """source: the request's prompt. sequence: the ids that the decoder sees: prompt and answer, or
    for an encoder-decoder model its start ids and the answer."""

    source: tuple[int, ...]
    sequence: Sequence

    @property
    def key(self) -> tuple[int, int]:
        """Request id and choice."""
        return self.sequence.key

    @property
    def room(self) -> int:
        """Tokens that the answer may still have."""
        return self.sequence.stop_at - len(self.sequence.tokens)

    @property
    def reads_alone(self) -> bool:
        """Whether it wants the logits of its whole prompt, which no other row should pay for."""
        return self.sequence.prompt_logprobs is not None
