"""Guesses of the next tokens by looking the last ones up earlier in the same text.

Answers repeat: names, quotations of the prompt, code. What followed the last tokens when they stood
there before is a free guess, and one forward pass checks all of it (prompt lookup decoding,
Saxena 2023; the check is that of speculative decoding, Leviathan et al. 2023, for a guess without a
distribution of its own). The answers stay what they would be: each guessed token counts only if
the sampler chose it too, with the random number of its own place.

How often guessing pays depends on the text, so each sequence rests after failures: 1, 2, 4 ... up
to MAX_REST tokens, until a guess comes true. And it pays only where a row more costs less than a
step: as long as the processor waits for the weights (`free_rows`). Both rules count tokens and
rows, never time: all ranks of a tensor parallel group must guess alike.
"""

from __future__ import annotations

from array import array
from typing import Final, Protocol

from lmi.dist.plan import Segment
from lmi.dist.sequence import Sequence, is_penalised

MAX_REST: Final = 64  # tokens: a hopeless text costs one wasted row in 64 then
# Earlier places that are looked at, the latest first. The work per step stays bounded in a text
# that repeats two tokens for ever.
CANDIDATES: Final = 16
KEY_TOKENS: Final = 2  # a shorter match says little; the n-gram's length may be set below it


class Guesser(Protocol):
    """Proposes tokens for sequences that decode, and hears what became of them."""

    def guess(self, decode: list[Sequence], left: int, /) -> list[Segment]:
        """Segments for some of `decode`, with at most `left` guessed tokens in total."""

    def judged(self, segment: Segment, accepted: int, /) -> None:
        """So many of the segment's guesses, from the first on, were right."""

    def forget(self, sequence: Sequence, /) -> None:
        """The sequence ended."""


class NoGuesser:
    """Every token is computed in a step of its own."""

    def guess(self, _decode: list[Sequence], _left: int, /) -> list[Segment]:
        """None."""
        return []

    def judged(self, _segment: Segment, _accepted: int, /) -> None:
        """Never called."""

    def forget(self, _sequence: Sequence, /) -> None:
        """Nothing is kept."""


class NgramIndex:
    """Where each run of `key` tokens stood in a text that grows: hash chains, as in LZ77.

    `find` costs the same however long the text is, and `take` a dictionary entry per token.
    """

    __slots__ = ("_before", "_key", "_last", "_longest")

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._key = min(KEY_TOKENS, longest)
        self._last: dict[tuple[int, ...], int] = {}  # run -> where its latest one ends
        self._before = array("i")  # end of a run -> end of the same run before, or -1

    def take(self, tokens: list[int]) -> None:
        """Take in what was appended to the text since the last call."""
        before, last, key = self._before, self._last, self._key
        for end in range(len(before), len(tokens)):
            run = tuple(tokens[max(0, end + 1 - key) : end + 1])
            before.append(last.get(run, -1))
            last[run] = end

    def find(self, tokens: list[int]) -> int | None:
        """The place after the longest earlier match of the text's end, the latest among equals."""
        self.take(tokens)
        end = len(tokens) - 1
        best, length = None, 0
        place = self._before[end]
        for _ in range(CANDIDATES):
            if place < 0:
                break
            found = self._match(tokens, place, end)
            if found > length:
                best, length = place + 1, found
                if length == self._longest:
                    break
            place = self._before[place]
        return best if length >= self._key else None

    def _match(self, tokens: list[int], place: int, end: int) -> int:
        """How many tokens up to `place` equal those up to `end`, at most the longest wanted."""
        length = 0
        while length < self._longest and place >= length:
            if tokens[place - length] != tokens[end - length]:
                break
            length += 1
        return length


class _State:
    """What is remembered of a sequence."""

    __slots__ = ("failures", "index", "resting_until")

    def __init__(self, longest: int) -> None:
        self.index = NgramIndex(longest)
        self.failures = 0  # since a guess came true
        self.resting_until = 0  # length of the text


class NgramGuesser:
    """Guesses up to `most` tokens from matches of up to `longest` last ones.

    free_rows: no guess makes a step of decodes longer than this.
    """

    def __init__(self, *, most: int, longest: int, free_rows: int) -> None:
        self._most = most
        self._longest = longest
        self._free_rows = free_rows
        self._states: dict[tuple[int, int], _State] = {}

    def guess(self, decode: list[Sequence], left: int, /) -> list[Segment]:
        """The oldest sequences guess first. Penalised ones don't: their penalties count tokens."""
        segments: list[Segment] = []
        left = min(left, self._free_rows - len(decode))
        for sequence in decode:
            if left <= 0:
                break
            length = len(sequence.tokens)
            # One token comes without a guess, and none is wanted after the last.
            most = min(self._most, left, sequence.stop_at - length - 1)
            if most <= 0 or is_penalised(sequence.request):
                continue
            guess = self._look_up(sequence, most)
            if guess:
                segments.append(Segment(sequence, length - 1, length, guess))
                left -= len(guess)
        return segments

    def judged(self, segment: Segment, accepted: int, /) -> None:
        """Let the sequence rest after a guess of which nothing was right."""
        state = self._states[segment.sequence.key]
        if accepted:
            state.failures = 0
            return
        state.resting_until = segment.stop + 1 + min(MAX_REST, 1 << state.failures)
        state.failures += 1

    def forget(self, sequence: Sequence, /) -> None:
        """Drop the sequence's index."""
        self._states.pop(sequence.key, None)

    def _look_up(self, sequence: Sequence, most: int) -> tuple[int, ...]:
        state = self._states.get(sequence.key)
        if state is None:
            state = self._states[sequence.key] = _State(self._longest)
        tokens = sequence.tokens
        if len(tokens) < state.resting_until:
            return ()
        place = state.index.find(tokens)
        if place is None:
            return ()
        # A match that ends close to the end repeats itself: the guess goes on in the guess.
        period = len(tokens) - place
        guess = tokens[place : place + most]
        while len(guess) < most:
            guess.append(guess[len(guess) - period])
        return tuple(guess)
