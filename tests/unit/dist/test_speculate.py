"""Looking n-grams up: the right guesses, in bounded time, and rests after failures."""

from __future__ import annotations

from random import Random

import pytest

from lmi.dist.messages import CoreRequest
from lmi.dist.plan import Segment
from lmi.dist.sequence import Sequence
from lmi.dist.speculate import CANDIDATES, MAX_REST, NgramGuesser, NgramIndex


def sequence(tokens: list[int], *, answer: int = 100, **fields: object) -> Sequence:
    request = CoreRequest(1, tuple(tokens), max_new_tokens=answer, **fields)  # type: ignore[arg-type]
    made = Sequence.of(request, 0, eos_ids=frozenset(), max_model_len=100_000)
    made.done = len(tokens) - 1
    return made


def guesser_of(most: int, longest: int, free_rows: int = 1000) -> NgramGuesser:
    return NgramGuesser(most=most, longest=longest, free_rows=free_rows)


def guess(guesser: NgramGuesser, one: Sequence, left: int = 100) -> tuple[int, ...]:
    segments = guesser.guess([one], left)
    return segments[0].guess if segments else ()


def test_the_guess_is_what_followed_the_longest_match() -> None:
    # 1 2 3 stood before 10, and 2 3 before 20 as well.
    tokens = [1, 2, 3, 10, 11, 12, 9, 2, 3, 20, 21, 1, 2, 3]
    assert guess(guesser_of(3, 3), sequence(tokens)) == (10, 11, 12)
    # Of equal matches the latest counts.
    assert guess(guesser_of(2, 2), sequence(tokens)) == (20, 21)


def test_without_a_match_nothing_is_guessed() -> None:
    guesser = guesser_of(3, 3)
    assert guess(guesser, sequence([1, 2, 3, 4, 5])) == ()
    assert guess(guesser, sequence([1])) == ()
    # One token alone says too little, unless it is all that is asked.
    assert guess(guesser, sequence([7, 1, 2, 7])) == ()
    assert guess(guesser_of(3, 1), sequence([7, 1, 2, 7])) == (1, 2, 7)


def test_a_text_that_repeats_itself_is_continued_beyond_its_end() -> None:
    guesser = guesser_of(7, 3)
    assert guess(guesser, sequence([5, 1, 2, 1, 2, 1, 2])) == (1, 2, 1, 2, 1, 2, 1)


def test_the_index_that_grows_finds_what_a_fresh_one_does() -> None:
    random = Random(0)
    tokens = [random.randrange(4) for _ in range(300)]
    growing = NgramIndex(3)
    for length in range(1, 300):
        assert growing.find(tokens[:length]) == NgramIndex(3).find(tokens[:length])


@pytest.mark.parametrize("longest", [1, 2, 3, 5])
def test_the_index_finds_what_a_search_of_the_whole_text_does(longest: int) -> None:
    random = Random(longest)
    tokens = [random.randrange(40) for _ in range(400)]  # few candidates: none is left out
    index = NgramIndex(longest)
    found = 0
    for length in range(1, 400):
        text = tokens[:length]
        lengths = range(longest, min(2, longest) - 1, -1)
        want = next(
            (
                place + n
                for n in lengths
                for place in range(length - n - 1, -1, -1)
                if length > n and text[place : place + n] == text[-n:]
            ),
            None,
        )
        assert index.find(text) == want
        found += want is not None
    assert found > 20


def test_no_more_places_are_looked_at_than_promised() -> None:
    class Counted(NgramIndex):
        looked = 0

        def _match(self, tokens: list[int], place: int, end: int) -> int:
            self.looked += 1
            return super()._match(tokens, place, end)

    index = Counted(9)
    tokens = [3, 1, 2, 1, 2] * 400
    index.find(tokens)
    assert 0 < index.looked <= CANDIDATES


def test_guesses_keep_to_the_budget_and_to_the_answers_end() -> None:
    repeating = [1, 2] * 6
    guesser = guesser_of(5, 2)
    three = [sequence(repeating) for _ in range(3)]
    for number, one in enumerate(three):
        one.choice = number
    assert [len(s.guess) for s in guesser.guess(three, 8)] == [5, 3]
    # Of three tokens that are left one comes by itself, and then two guesses may come true.
    assert len(guess(guesser, sequence(repeating, answer=3))) == 2
    assert guess(guesser, sequence(repeating, answer=1)) == ()


def test_no_guess_makes_a_step_longer_than_what_is_free() -> None:
    three = [sequence([1, 2] * 6) for _ in range(3)]
    for number, one in enumerate(three):
        one.choice = number
    assert [len(s.guess) for s in guesser_of(5, 2, free_rows=9).guess(three, 100)] == [5, 1]
    assert guesser_of(5, 2, free_rows=3).guess(three, 100) == []


def test_penalised_requests_do_not_guess() -> None:
    guesser = guesser_of(5, 2)
    assert guess(guesser, sequence([1, 2] * 6, repetition_penalty=1.1)) == ()


def test_failures_make_a_sequence_rest_twice_as_long_each_time_and_success_ends_that() -> None:
    guesser = guesser_of(2, 2)
    one = sequence([1, 2] * 6, answer=10_000)
    rests: list[int] = []
    rested = 0
    while len(rests) < 9:
        segments = guesser.guess([one], 100)
        if segments:
            rests.append(rested)
            rested = 0
            guesser.judged(segments[0], 0)
        else:
            rested += 1
        one.tokens.append(1 + len(one.tokens) % 2)
    assert rests[1:] == [1, 2, 4, 8, 16, 32, MAX_REST, MAX_REST]
    while not (segments := guesser.guess([one], 100)):
        one.tokens.append(1 + len(one.tokens) % 2)
    guesser.judged(segments[0], 1)
    one.tokens.append(1 + len(one.tokens) % 2)
    assert guess(guesser, one)


def test_a_segment_knows_where_its_guess_ends() -> None:
    one = sequence([5, 6, 7])
    segment = Segment(one, 2, 3, (8, 9))
    assert (segment.tokens, segment.end, segment.last) == ([7, 8, 9], 5, True)
