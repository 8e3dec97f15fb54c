"""One step of the engine as data: what the planner decides and the model computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from lmi.dist.sequence import Sequence


class Segment(NamedTuple):
    """Several tokens of one sequence, to be computed in one forward pass.

    They are its tokens [start, stop), then those of `guess`: tokens that may come next, so that the
    logits at each of them are wanted too.
    """

    sequence: Sequence
    start: int
    stop: int
    guess: tuple[int, ...] = ()

    @property
    def tokens(self) -> list[int]:
        """The ids, in order."""
        return [*self.sequence.tokens[self.start : self.stop], *self.guess]

    @property
    def end(self) -> int:
        """The sequence's length in the KV cache after this pass, guessed tokens included."""
        return self.stop + len(self.guess)

    @property
    def last(self) -> bool:
        """Whether the sequence's next token can be sampled afterwards."""
        return self.stop == len(self.sequence.tokens)

    @property
    def logprob_rows(self) -> tuple[int, int] | None:
        """The positions [first, end) of this segment that give prompt logprobs not yet known.

        The logits at position i tell the probability of the prompt's token i + 1.
        """
        known = self.sequence.prompt_logprobs
        if known is None:
            return None
        first, end = max(self.start, len(known)), min(self.stop, self.sequence.prompt_len - 1)
        return (first, end) if first < end else None


@dataclass(frozen=True, slots=True)
class Plan:
    """One forward pass: prefill segments, then guessed ones, then sequences that decode one token.

    admitted: those that came from the queue in this step (their places and blocks are new). grown:
    other sequences with new blocks behind those that they had. copies: (from, to) KV blocks whose
    content is copied before anything is computed; no block is on both sides.
    """

    prefill: list[Segment]
    decode: list[Sequence]
    admitted: list[Sequence]
    guessed: list[Segment] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    grown: list[Sequence] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.decode or self.prefill or self.guessed)

    @property
    def segments(self) -> list[Segment]:
        """Those with more than one token or not, in the order of the packed batch."""
        return self.prefill + self.guessed if self.guessed else self.prefill

    @property
    def sequences(self) -> list[Sequence]:
        """Every sequence with tokens in this pass, in the order of the packed batch."""
        return [segment.sequence for segment in self.segments] + self.decode

    @property
    def rows(self) -> list[Sequence]:
        """The sequence of each row of logits from which a token is sampled, in their order.

        A guessed segment has one row more than guesses: its sequence stands there as often.
        """
        rows = [segment.sequence for segment in self.prefill if segment.last]
        for segment in self.guessed:
            rows += [segment.sequence] * (1 + len(segment.guess))
        return rows + self.decode
