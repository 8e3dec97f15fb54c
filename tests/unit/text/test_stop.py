"""Stop strings: where the text is cut, and that nothing of a stop ever leaks."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmi.core import BadPayload
from lmi.text import MAX_STOP_CHARS, MAX_STOPS, StopMatcher, StopStrings, TextStream
from tests.support.trained_tokenizers import Kind

# A small alphabet makes overlaps and repeated beginnings likely.
WORDS = st.text(alphabet="aabc é", max_size=40)
STOPS = st.lists(st.text(alphabet="aabc é", min_size=1, max_size=5), min_size=1, max_size=6)


def cut_by_rule(text: str, stops: list[str], *, include: bool) -> tuple[str, bool]:
    """The first end of a stop; of those that end there, the longest."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end if include else end - max(map(len, ending))], True
    return text, False


def split(text: str, cuts: list[int]) -> list[str]:
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(places)]


@settings(max_examples=400, deadline=None)
@given(
    text=WORDS, stops=STOPS, cuts=st.lists(st.integers(0, 40), max_size=12), include=st.booleans()
)
def test_the_text_is_cut_at_the_first_stop_however_it_is_split(
    text: str, stops: list[str], cuts: list[int], include: bool
) -> None:
    expected = cut_by_rule(text, stops, include=include)
    matcher = StopMatcher(StopStrings(stops), include=include)
    shown, stopped = "", False
    for piece in split(text, cuts):
        fresh, stopped = matcher.push(piece)
        shown += fresh
        assert expected[0].startswith(shown)
        if stopped:
            break
    if not stopped:
        shown += matcher.flush()
    assert (shown, stopped) == expected


@settings(max_examples=300, deadline=None)
@given(text=WORDS, stops=STOPS)
def test_no_more_is_held_back_than_may_become_a_stop(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(StopStrings(stops))
    shown = ""
    for place, char in enumerate(text):
        fresh, stopped = matcher.push(char)
        shown += fresh
        if stopped:
            return
        held = text[len(shown) : place + 1]
        assert text.startswith(shown)
        longest = max(
            size
            for size in range(place + 2)
            if any(stop.startswith(text[place + 1 - size : place + 1]) for stop in stops)
        )
        assert len(held) == longest


def test_with_the_stop_included_nothing_is_held_back() -> None:
    matcher = StopMatcher(StopStrings(["END"]), include=True)
    assert [matcher.push(piece) for piece in ("a E", "N", "D b")] == [
        ("a E", False),
        ("N", False),
        ("D", True),
    ]


def test_a_stop_within_the_first_tokens_does_not_count(kinds: dict[str, Kind]) -> None:
    kind = kinds["byte_level"]
    ids = kind.rust.encode("b a c a d", add_special_tokens=False).ids
    pieces = [kind.ours.text(token_id) for token_id in ids]
    for least in range(len(ids) + 1):
        stream = TextStream(
            kind.ours.detokenizer(), matcher=StopMatcher(StopStrings(["a"])), min_tokens=least
        )
        shown, read = "", 0
        for token_id in ids:
            text, stopped = stream.push(token_id)
            shown += text
            if stopped:
                break
            read += 1
        ends = [n for n, piece in enumerate(pieces) if "a" in piece and n >= least]
        if ends:
            assert read == ends[0]
            assert shown == "".join(pieces[: ends[0]]) + pieces[ends[0]].split("a")[0]
        else:
            assert shown + stream.flush()[0] == "b a c a d"


@pytest.mark.parametrize(
    "name", ["byte_level", "byte_fallback", "metaspace", "word_piece", "suffixed"]
)
@settings(max_examples=60, deadline=None)
@given(
    text=st.text(alphabet="abe 日é😀\n", max_size=30),
    stops=st.lists(st.text(alphabet="abe 日é😀\n", min_size=1, max_size=4), min_size=1, max_size=4),
    include=st.booleans(),
)
def test_a_stream_of_tokens_is_the_whole_decoding_cut_at_the_first_stop(
    kinds: dict[str, Kind], name: str, text: str, stops: list[str], include: bool
) -> None:
    kind = kinds[name]
    ids = kind.rust.encode(text).ids
    expected, stops_there = cut_by_rule(kind.rust.decode(ids), stops, include=include)
    stream = TextStream(
        kind.ours.detokenizer(),
        hidden=kind.ours.special_ids,
        matcher=StopMatcher(StopStrings(stops), include=include),
    )
    shown, stopped = "", False
    for token_id in ids:
        fresh, stopped = stream.push(token_id)
        shown += fresh
        if stopped:
            break
    if not stopped:
        fresh, stopped = stream.flush()
        shown += fresh
    assert (shown, stopped) == (expected, stops_there)


def test_a_stop_may_end_in_what_is_flushed(kinds: dict[str, Kind]) -> None:
    kind = kinds["byte_level"]
    ids = kind.rust.encode("x🫠", add_special_tokens=False).ids[:-1]
    stream = TextStream(kind.ours.detokenizer(), matcher=StopMatcher(StopStrings(["\ufffd"])))
    assert "".join(stream.push(token_id)[0] for token_id in ids) == "x"
    assert stream.flush() == ("", True)


@pytest.mark.parametrize(
    ("stops", "message"),
    [
        (["a"] * (MAX_STOPS + 1), "257 stop strings: at most 256"),
        (["a" * (MAX_STOP_CHARS + 1)], "4097 characters: at most 4096"),
        (["end", ""], "an empty stop string"),
    ],
)
def test_stop_strings_that_cannot_be_served_are_refused(stops: list[str], message: str) -> None:
    with pytest.raises(BadPayload, match=message) as caught:
        StopStrings(stops)
    assert caught.value.field == "stop"


def test_the_limits_themselves_are_served() -> None:
    rng = random.Random(5)
    stops = ["".join(rng.choices("ab", k=16)) for _ in range(MAX_STOPS)]
    assert len("".join(stops)) == MAX_STOP_CHARS
    text = "".join(rng.choices("ab", k=2000))
    matcher = StopMatcher(StopStrings(stops))
    shown, stopped = matcher.push(text)
    assert (shown if stopped else shown + matcher.flush(), stopped) == cut_by_rule(
        text, stops, include=False
    )


def test_a_stop_that_keeps_almost_matching_is_held_back_and_no_more() -> None:
    matcher = StopMatcher(StopStrings(["a" * (MAX_STOP_CHARS - 1) + "b"]))
    shown, stopped = matcher.push("a" * 20_000)
    assert not stopped
    assert len(shown) == 20_000 - (MAX_STOP_CHARS - 1)
    assert matcher.push("b") == ("", True)
