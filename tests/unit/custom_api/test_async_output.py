"""Answers of asynchronous handlers carry text, its end, and errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from lmi.custom.answers import read_map
from lmi.custom.api import Output
from lmi.custom.api.async_output import (
    create_non_stream_output,
    create_stream_chunk_output,
    handle_streaming_response,
)


def fields(output: Output) -> dict[str, str] | None:
    return read_map(bytes(output.content.value_at(0)))


def test_a_whole_answer_is_the_last_and_ends_its_line() -> None:
    output = create_non_stream_output({"a": "ä"}, properties={"X-A": "1"})
    assert fields(output) == {"data": '{"a":"ä"}\n', "last": "True"}
    assert output.properties == {"Content-Type": "application/json", "X-A": "1"}


def test_an_error_carries_its_code() -> None:
    output = create_stream_chunk_output("", True, error="e", code=424)
    assert fields(output) == {"data": "\n", "last": "True", "error": "e", "code": "424"}
    assert output.get_property("Content-Type") == "application/jsonlines"


def collect(chunks: list[Any], formatter: Any, **more: Any) -> list[dict[str, str] | None]:
    async def source() -> AsyncIterator[Any]:
        for chunk in chunks:
            yield chunk

    async def run() -> list[dict[str, str] | None]:
        found = handle_streaming_response(source(), formatter, **more)
        return [fields(output) async for output in found]

    return asyncio.run(run())


def test_each_chunk_goes_through_the_formatter_up_to_the_last() -> None:
    found = collect(
        ["a", "b", "c"], lambda chunk, suffix: (chunk + suffix, chunk == "b"), suffix="!"
    )
    assert [each["data"] for each in found] == ["a!\n", "b!\n"]
    assert [each["last"] for each in found] == ["False", "True"]


def test_a_formatter_that_accumulates_gets_its_history_back() -> None:
    def formatter(chunk: str, history: list[str]) -> tuple[str, bool, list[str]]:
        history = [*history, chunk]
        return "".join(history), False, history

    found = collect(["a", "b"], formatter, accumulate_chunks=True)
    assert [each["data"] for each in found] == ["a\n", "ab\n"]


def test_a_formatter_that_raises_ends_the_stream_with_an_error() -> None:
    found = collect(["1", "x", "2"], lambda chunk: (str(int(chunk)), False))
    assert found[0]["data"] == "1\n"
    assert found[1]["code"] == "424"
    assert "invalid literal" in found[1]["error"]
    assert len(found) == 2
