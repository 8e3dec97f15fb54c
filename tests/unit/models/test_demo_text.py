"""The demo model's text: prose is joined, code and tables stay, the digest is the card's."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from tools.demo_corpus import digest, documents, unwrap

CARD = Path(__file__).resolve().parents[3] / "examples" / "demo" / "README.md"


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("one\ntwo\nthree", "one two three"),
        ("one.  Two", "one. Two"),
        ("a left-\nhand side", "a left-hand side"),
        ("if x:\n    f()\nelse:\n    g()", "if x:\n    f()\nelse:\n    g()"),
        ("   one\n   two", "   one two"),
        ("a | b  c\nd | e  f", "a | b  c\nd | e  f"),
        (">>> f()\n3", ">>> f()\n3"),
        ("* one\n  two\n* three", "* one\n  two\n* three"),
        ("\n\n  x ::= y\n\n\n\nz\n", "  x ::= y\n\nz"),
        ("“it’s” — so…", '"it\'s" - so...'),
    ],
)
def test_prose_is_joined_and_everything_else_keeps_its_lines(text, joined):
    assert unwrap(text) == joined


@pytest.mark.slow
def test_the_text_is_the_one_that_the_card_names():
    card = CARD.read_text()
    if f"CPython {platform.python_version()}." not in card:
        pytest.skip("the card is of another CPython release")
    texts = documents()
    assert len(set(texts)) == len(texts)
    assert f"{len(texts):,} documents, {sum(map(len, texts)):,} characters" in card
    found = re.search(r"`([0-9a-f]{64})`", card)
    assert found is not None
    assert digest(texts) == found[1]
