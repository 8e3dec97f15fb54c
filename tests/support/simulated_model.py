"""A model and its KV cache as plain Python: what each slot holds is known, and so is each answer.

A slot holds the whole text up to its token, so a shared, copied or forgotten block that does not
belong to a sequence is seen at once.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from zlib import crc32

from lmi.dist.plan import Plan
from lmi.dist.scheduler import Scheduler
from lmi.dist.sequence import Sequence

END = 0


class SimulatedModel:
    """Computes plans. vocabulary: the fewer ids, the more often a text repeats itself.

    checks: everything that a sequence would read is compared with its own text.
    """

    def __init__(self, block_size: int, vocabulary: int = 5) -> None:
        self._block_size = block_size
        self._vocabulary = vocabulary
        self._slots: dict[int, int] = {}  # slot -> digest of the text up to its token
        self.computed = 0  # tokens

    def next_token(self, text: Tokens[int], choice: int) -> int:
        """The answer's next token: END now and then, else one that depends on the last three."""
        recent = tuple(text[-3:])
        seen = crc32(repr((recent, choice, len(text) // 12)).encode())
        return seen % self._vocabulary if seen % 97 == 0 else 1 + seen % (self._vocabulary - 1)

    def answer(self, sequence: Sequence) -> list[int]:
        """All tokens that the sequence must end up with."""
        text = list(sequence.request.prompt)
        while len(text) < sequence.stop_at:
            text.append(self.next_token(text, sequence.choice))
            if text[-1] in sequence.end_ids:
                break
        return text

    def run(self, plan: Plan) -> list[int]:
        """Write and read the cache as the plan says; the token that each of its rows gives."""
        size = self._block_size
        for source, target in plan.copies:
            for offset in range(size):
                self._slots[target * size + offset] = self._slots.get(source * size + offset, -1)
        parts = [(s.sequence, s.start, s.tokens) for s in plan.segments]
        parts += [(s, len(s.tokens) - 1, s.tokens[-1:]) for s in plan.decode]
        for sequence, start, tokens in parts:
            for place, digest in enumerate(_digests([*sequence.tokens[:start], *tokens])):
                if place >= start:
                    self._slots[self._slot(sequence, place)] = digest
                    self.computed += 1
        rows = []
        for sequence, start, tokens in parts:
            text = [*sequence.tokens[:start], *tokens]
            for place, digest in enumerate(_digests(text)):
                found = self._slots.get(self._slot(sequence, place))
                assert found == digest, f"{sequence.key} reads other KV"
            first = len(sequence.tokens)
            rows += [
                self.next_token(text[:length], sequence.choice)
                for length in range(first, len(text) + 1)
            ]
        return rows

    def _slot(self, sequence: Sequence, place: int) -> int:
        size = self._block_size
        return sequence.blocks[place // size] * size + place % size


def advance(planner: Scheduler, plan: Plan, rows: list[int]) -> list[Sequence]:
    """What the core does after a forward pass: take the rows; returns the sequences that ended."""
    results = iter(rows)
    taken: list[tuple[Sequence, int, list[int]]] = []
    for segment in plan.prefill:
        if segment.last:
            taken.append((segment.sequence, segment.stop, [next(results)]))
        else:
            planner.computed(segment.sequence, segment.stop)
    for segment in plan.guessed:
        tokens = [next(results) for _ in range(1 + len(segment.guess))]
        accepted = 0
        while accepted < len(segment.guess) and segment.guess[accepted] == tokens[accepted]:
            accepted += 1
        planner.judged(segment, accepted)
        taken.append((segment.sequence, segment.stop, tokens[: accepted + 1]))
    taken += [(one, one.done + 1, [next(results)]) for one in plan.decode]
    ended = []
    for sequence, done, tokens in taken:
        for place, token in enumerate(tokens):
            planner.computed(sequence, done + place)
            sequence.tokens.append(token)
            if token in sequence.end_ids or len(sequence.tokens) >= sequence.stop_at:
                planner.remove(sequence)
                planner.pool.take_dirty()
                ended.append(sequence)
                break
    return ended


def _digests(text: Tokens[int]) -> list[int]:
    """One of each beginning of the text."""
    digests, last = [], 0
    for token in text:
        last = crc32(token.to_bytes(4, "little"), last)
        digests.append(last)
    return digests
