"""The nearest name is the one a person would have meant."""

from __future__ import annotations

import random
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from lmi.config.nearest import Names, distance
from tests.unit.config.harness import misspelt

_WORDS = st.text(alphabet="abc_", max_size=7)


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[str, str]:
    """A word and what a few edits make of it."""
    word = draw(_WORDS)
    seed = draw(st.integers(0, 2**32))
    edited, rng = word, random.Random(seed)
    for _ in range(draw(st.integers(0, 3))):
        edited = misspelt(edited, rng) if len(edited) > 1 else "ab"
    return word, edited


def _reference(one: str, other: str) -> int:
    """Optimal string alignment, straight from its recurrence."""

    @cache
    def between(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        same = one[i - 1] == other[j - 1]
        ways = [between(i - 1, j) + 1, between(i, j - 1) + 1, between(i - 1, j - 1) + (not same)]
        if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
            ways.append(between(i - 2, j - 2) + 1)
        return min(ways)

    return between(len(one), len(other))


@given(_pairs(), st.integers(0, 8))
def test_the_distance_is_the_recurrences(pair: tuple[str, str], most: int) -> None:
    one, other = pair
    assert distance(one, other, most) == min(_reference(one, other), most + 1)


@given(_pairs())
def test_the_distance_is_symmetric(pair: tuple[str, str]) -> None:
    one, other = pair
    assert distance(one, other, 8) == distance(other, one, 8)


@given(_WORDS, st.lists(_WORDS, max_size=8))
def test_one_edit_is_found_exactly_where_there_is_one(name: str, known: list[str]) -> None:
    found = Names(known).one_edit(name)
    near = [each for each in known if distance(name, each, 1) == 1]
    assert found == (near[0] if near else None)


@given(_WORDS, st.lists(_WORDS, min_size=1, max_size=8))
def test_nothing_known_is_nearer_than_the_nearest(name: str, known: list[str]) -> None:
    found = Names(known).nearest(name)
    fewest = min(distance(name, each, 8) for each in known)
    if found is None:
        assert fewest > max(1, len(name) // 3)
    else:
        assert distance(name, found, 8) == fewest
        assert found == next(each for each in known if distance(name, each, 8) == fewest)


def test_the_nearest_of_several_is_found() -> None:
    known = Names(("option.type", "option.dtype", "option.task"))
    assert known.nearest("option.dtpye") == "option.dtype"


def test_case_does_not_count() -> None:
    known = Names(("option.handler", "option.entryPoint"))
    assert known.nearest("OPTION.ENTRYPOINT") == "option.entryPoint"


def test_a_name_that_resembles_nothing_has_no_nearest() -> None:
    assert Names(("option.dtype", "engine")).nearest("zzzzzzzz") is None


def test_one_edit_is_exactly_one() -> None:
    known = Names(("option.dtype",))
    assert known.one_edit("option.dtyp") == "option.dtype"
    assert known.one_edit("option.DTYPE") == "option.dtype"
    assert known.one_edit("option.dtype") is None
    assert known.one_edit("option.dty") is None
