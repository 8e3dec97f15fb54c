"""docs/options.md says what the table says."""

from __future__ import annotations

from lmi.config.options import TABLE
from tools.write_options_doc import DOCUMENT, document


def test_the_document_is_what_the_table_gives() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document()


def test_every_option_and_older_spelling_is_in_the_document() -> None:
    text = document()
    for option in TABLE:
        for name in (option.key, option.variable, *option.aliases):
            assert f"`{name}`" in text, name
