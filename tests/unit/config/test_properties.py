"""The properties reader and writer: recorded cases, lines, files, round trips."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmi.config.properties import Property, load, parse, render
from lmi.core import ConfigError
from tests.unit.config.java.oracle import RECORDED, as_java_holds

any_text = st.text(st.characters() | st.characters(categories=["Cs"])).map(as_java_holds)
special_text = st.text("\\ud83de00 =:#!\t\f\r\nx").map(as_java_holds)


def pairs(text: str) -> list[tuple[str, str]] | None:
    try:
        return [(found.key, found.value) for found in parse(text)]
    except ConfigError:
        return None


def test_each_recorded_text_reads_as_the_jdk_read_it():
    cases = json.loads(RECORDED.read_text(encoding="ascii"))
    assert len(cases) > 300
    for case in cases:
        expected = case["java"] and [tuple(pair) for pair in case["java"]]
        assert pairs(case["text"]) == expected, case["text"]


@given(st.dictionaries(any_text | special_text, any_text | special_text))
def test_rendered_text_reads_back_to_the_same_entries(mapping):
    text = render(mapping)
    assert text.isascii()
    assert {found.key: found.value for found in parse(text)} == mapping
    assert render({found.key: found.value for found in parse(text)}) == text


def test_rendered_options_look_as_a_person_writes_them():
    mapping = {"engine": "Python", "option.model_id": "s3://bucket/a b/", "option.x": '{"a": "#!"}'}
    assert render(mapping) == (
        'engine=Python\noption.model_id=s3://bucket/a b/\noption.x={"a": "#!"}\n'
    )


@given(any_text | special_text)
def test_any_text_is_read_or_refused_with_its_line(text):
    try:
        found = parse(text, source="serving.properties")
    except ConfigError as error:
        name, line = error.source.split(":")
        assert name == "serving.properties"
        assert 1 <= int(line) <= text.count("\n") + text.count("\r") + 1
    else:
        lines = [each.line for each in found]
        assert lines == sorted(set(lines))


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_property_knows_the_line_where_it_begins(end):
    text = end.join(
        ["# comment", "", "a=1", "b=2,\\", "  3,\\", "  4", "\\", "c=5", "! \\", "a=6", "d"]
    )
    assert parse(text) == (
        Property("a", "1", 3),
        Property("b", "2,3,4", 4),
        Property("c", "5", 8),
        Property("a", "6", 10),
        Property("d", "", 11),
    )


def test_a_malformed_escape_names_the_text_its_line_and_what_would_be_right():
    with pytest.raises(ConfigError) as caught:
        parse("engine=Python\noption.model_id=C:\\users\\me\n", source="serving.properties")
    assert caught.value.option == "option.model_id"
    assert str(caught.value) == (
        r"option.model_id='C:\\users\\me' (from serving.properties:2): "
        r"expected four hexadecimal digits after \u (a backslash itself is written \\)"
    )


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("a=\u00e9\u20ac".encode(), "\u00e9\u20ac"),
        (b"\xef\xbb\xbfa=b", "b"),
        (b"a=\xe9\xff", "\u00e9\u00ff"),
        (b"a=\\u00e9 ", "\u00e9 "),
    ],
    ids=["utf-8", "byte order mark", "iso-8859-1", "escaped"],
)
def test_a_file_reads_as_its_author_saw_it(tmp_path: Path, data: bytes, value: str):
    path = tmp_path / "serving.properties"
    path.write_bytes(data)
    assert load(path) == (Property("a", value, 1),)


def test_a_malformed_file_is_named_with_its_line(tmp_path: Path):
    path = tmp_path / "serving.properties"
    path.write_bytes(b"\n\na=\\u12")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.source == "serving.properties:3"


def test_a_file_that_cannot_be_read_is_a_configuration_error(tmp_path: Path):
    with pytest.raises(ConfigError, match="expected a readable file: Is a directory"):
        load(tmp_path)
