"""What becomes of a body: one item, or one for each field of a form."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmi.server.content import MAX_FIELDS, BadForm, items

FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
PARTS = {"content-type": 'multipart/form-data; boundary="x y"'}


def part(name: str, value: bytes, more: str = "") -> bytes:
    head = f'--x y\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value + b"\r\n"


END = b"--x y--\r\n"


def test_the_query_comes_before_the_body() -> None:
    assert items("a=1&b=%C3%BC&a=", {}, b"{}") == (
        ("a", b"1"),
        ("b", "ü".encode()),
        ("a", b""),
        ("data", b"{}"),
    )


def test_a_form_has_an_item_for_each_field() -> None:
    assert items("", FORM, b"a=1&b=%00%FF&a=+") == (("a", b"1"), ("b", b"\0\xff"), ("a", b" "))


@pytest.mark.parametrize("body", [b'{"inputs": "a=b&c"}', b' ["a"]', b""])
def test_json_that_is_called_a_form_stays_one_item(body: bytes) -> None:
    assert items("", FORM, body) == (("data", body),)


def test_parts_keep_their_order_names_and_bytes() -> None:
    body = part("a", b"\0\r\n--x") + part("f", b"file", '; filename="f.bin"') + part("b", b"") + END
    assert items("", PARTS, body) == (("a", b"\0\r\n--x"), ("f", b"file"), ("b", b""))


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        (PARTS, b"", "its end is missing"),
        (PARTS, part("a", b"1"), "its end is missing"),
        (PARTS, part("a", b"1")[:-9], "its end is missing"),
        (PARTS, b"garbage", "can't be read"),
        ({"content-type": "multipart/form-data"}, END, "expected a boundary"),
        (PARTS, part("a", b"1") * (MAX_FIELDS + 1) + END, "more than"),
        (FORM, b"a=1&" * (MAX_FIELDS + 1), "can't be read"),
    ],
)
def test_a_form_that_is_none_is_refused(headers: dict[str, str], body: bytes, said: str) -> None:
    with pytest.raises(BadForm, match=said):
        items("", headers, body)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=20)), max_size=5))
def test_any_parts_come_back(fields: list[tuple[str, bytes]]) -> None:
    fields = [(name, value) for name, value in fields if b"--x y" not in value]
    body = b"".join(part(name, value) for name, value in fields) + END
    assert items("", PARTS, body) == tuple(fields)
