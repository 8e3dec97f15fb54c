"""Text becomes a value once, or an error that says what would be right."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmi.config.kinds import Choice, Flag, Json, Kind, Names, Real, Size, Tokens, Whole


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "1", "yes", "on", "t", "y", "Y"])
def test_pydantics_spellings_of_true_are_true(text: str) -> None:
    assert Flag().parse(text) is True


@pytest.mark.parametrize("text", ["false", "False", "0", "no", "off", "f", "n", "N"])
def test_pydantics_spellings_of_false_are_false(text: str) -> None:
    assert Flag().parse(text) is False


@pytest.mark.parametrize(
    ("kind", "text", "want"),
    [
        (Flag(), "maybe", "expected true or false"),
        (Flag(), "", "expected true or false"),
        (Whole(1, words=("max",)), "two", "expected a whole number from 1, or max"),
        (Whole(1), "0", "expected a whole number from 1"),
        (Whole(1, 9), "10", "expected a whole number from 1 to 9"),
        (Whole(most=9), "10", "expected a whole number up to 9"),
        (Whole(), "1.5", "expected a whole number"),
        (Whole(), "9" * 5000, "expected a whole number"),
        (Whole(), "１２", "expected a whole number"),
        (Real(0.0, 1.0), "1.5", "expected a number from 0.0 to 1.0"),
        (Real(), "nan", "expected a number"),
        (Real(), "inf", "expected a number"),
        (Choice(("a", "b")), "c", "expected one of a, b"),
        (Choice(("a",), alternative=Json("a JSON object", (dict,))), "[]", "or a JSON object"),
        (Json(), "{", "expected a JSON value"),
        (Json(), "NaN", "expected a JSON value"),
        (Json("a JSON object", (dict,)), "[]", "expected a JSON object"),
        (Tokens(), "4q", "expected a whole number such as 4096"),
        (Size(), "-1", "expected a number of bytes"),
        (Size(), "2 parsecs", "expected a number of bytes"),
        (Size(), "9" * 500, "expected a number of bytes"),
    ],
)
def test_a_wrong_text_is_told_what_would_be_right(kind: Kind, text: str, want: str) -> None:
    with pytest.raises(ValueError, match=r"^expected ") as caught:
        kind.parse(text)
    assert want in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Whole(1, words=("max",)), "MAX", "max"),
        (Whole(), "+7", 7),
        (Whole(-1), "-1", -1),
        (Real(0.0), ".5", 0.5),
        (Real(words=("auto",)), "Auto", "auto"),
        (Choice(("fp16",), (("half", "fp16"),)), "HALF", "fp16"),
        (Choice(("auto",), alternative=Json()), '{"a": 1}', {"a": 1}),
        (Size(), "2147483648", 2**31),
        (Size(), "2GB", 2 * 10**9),
        (Size(), "1.5 GiB", 3 * 2**29),
        (Size(), "512m", 512 * 10**6),
        (Size(), "7 B", 7),
        (Tokens(), "4096", 4096),
        (Tokens(), "4k", 4000),
        (Tokens(), "4K", 4096),
        (Tokens(), "auto", None),
        (Tokens(), "-1", None),
        (Names(), " a, b ,,c ", ("a", "b", "c")),
    ],
)
def test_a_right_text_becomes_its_value(kind: Kind, text: str, value: object) -> None:
    assert kind.parse(text) == value


@given(st.integers(-(10**17), 10**17))
def test_every_whole_number_reads_back(number: int) -> None:
    assert Whole().parse(str(number)) == number


@given(st.text(max_size=30))
def test_no_text_breaks_a_kind(text: str) -> None:
    for kind in (Flag(), Whole(), Real(), Choice(("a",)), Json(), Size(), Tokens(), Names()):
        with suppress(ValueError):
            kind.parse(text)
