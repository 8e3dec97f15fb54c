"""The snippets of docs/custom-handlers.md do what the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lmi.custom.api import Input, TextGenerationOutput, TextInput, Token
from lmi.custom.stock import REFUSED, STOCK

PAGE = (Path(__file__).parents[3] / "docs" / "custom-handlers.md").read_text()
HANDLER, FORMATTERS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_the_handler_answers() -> None:
    handle = run(HANDLER)["handle"]
    assert handle(Input()) is None
    inputs = Input()
    inputs.content.add("data", bytearray(b'{"text": "abc"}'))
    assert json.loads(handle(inputs).content.value_at(0)) == {"length": 3}


def test_the_formatters_read_and_write() -> None:
    names = run(FORMATTERS)
    assert names["read"].is_input_formatter
    assert names["write"].is_output_formatter
    assert names["read"]({"question": "q"})["inputs"] == "q"
    output = TextGenerationOutput(1, TextInput(1))
    output.set_next_token(Token(1, "a"))
    assert names["write"](output) == "a"


def test_every_stock_handler_and_every_refusal_is_on_the_page() -> None:
    for name in (*STOCK, *REFUSED):
        assert name in PAGE or f"`{name.removeprefix('djl_python.')}`" in PAGE, name
