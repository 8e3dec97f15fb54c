"""Protobuf's text format as people and templates write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmi.engines.trtllm.pbtxt import Message, parse


def only(text: str, name: str) -> object:
    (value,) = parse(text).all(name)
    return value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('a: "x"', "x"),
        ("a: 'x'", "x"),
        ('a: "x" "y"', "xy"),
        (r'a: "say \"x\"\n"', 'say "x"\n'),
        ("a: -1.5e3", "-1.5e3"),
        ("a: KIND_CPU,", "KIND_CPU"),
        ("a: ${unfilled}", "${unfilled}"),
        ("# before\na: 1 # after\n", "1"),
    ],
)
def test_a_scalar_is_its_text(text: str, value: str) -> None:
    assert only(text, "a") == value


@pytest.mark.parametrize("text", ["p { k: 1 }", "p: { k: 1 }", "p < k: 1 >", "p: [{ k: 1 }]"])
def test_a_message_is_written_in_many_ways(text: str) -> None:
    found = only(text, "p")
    assert isinstance(found, Message)
    assert found.text("k") == "1"


def test_names_repeat_and_lists_are_repeated_names() -> None:
    assert list(parse("a: 1 a: [2, 3]; a: 4").all("a")) == ["1", "2", "3", "4"]
    assert parse("a: 1 a: 2").text("a") == "2"
    assert parse("a: []").text("a") is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: {", 2),
        ("a", 1),
        ("a: 1\n\n}", 3),
        ('a: "open', 1),
        ("a: [1 2]", 1),
        ("a: [1,\n", 2),
        ("p { a: 1 >", 1),
        ("p {" * 100 + "}" * 100, 1),
        ("a: " + "[" * 100_000, 1),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, line: int) -> None:
    with pytest.raises(ValueError, match=rf"^line {line}: "):
        parse(text)


@given(st.text(alphabet="ab:{}[]<>,;\"'#$ \n\\01", max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert str(error).startswith("line ")  # noqa: PT017 - it may also be parsed
