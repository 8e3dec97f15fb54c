"""Answers of asynchronous handlers: Outputs that carry text, whether it is the last, and an error.

Their content is DJL's binary map with `data` and `last`, and for an error `code` and `error`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from lmi.custom.api.outputs import Output
from lmi.custom.api.payload import encode_json

log = logging.getLogger(__name__)

_FAILED = 424


def create_non_stream_output(
    data: Any,
    properties: Mapping[str, Any] | None = None,
    error: str | None = None,
    code: int | None = None,
) -> Output:
    """A whole answer: text as it is, anything else as JSON; a line end is added."""
    return _create(data, True, "application/json", properties or {}, error, code)


def create_stream_chunk_output(
    data: Any, last_chunk: bool, error: str | None = None, code: int | None = None
) -> Output:
    """A chunk of a stream: text as it is, anything else as JSON; a line end is added."""
    return _create(data, last_chunk, "application/jsonlines", {}, error, code)


async def handle_streaming_response(
    response: AsyncIterator[Any],
    stream_output_formatter: Callable[..., Any],
    accumulate_chunks: bool = False,
    **kwargs: Any,
) -> AsyncIterator[Output]:
    """Each chunk of `response` through a formatter, as an Output.

    The formatter returns (data, last), with accumulate_chunks (data, last, history): it gets its
    own history back as `history`. One that raises ends the stream with an error.
    """
    history: Any = []
    async for chunk in response:
        try:
            if accumulate_chunks:
                data, last, history = stream_output_formatter(chunk, history=history, **kwargs)
            else:
                data, last = stream_output_formatter(chunk, **kwargs)
        except Exception as error:  # whatever a user's formatter may raise
            log.exception("the formatter of a stream failed")
            yield create_stream_chunk_output("", True, error=str(error), code=_FAILED)
            return
        yield create_stream_chunk_output(data, last)
        if last:
            return


def _create(
    data: Any,
    last: bool,
    content_type: str,
    properties: Mapping[str, Any],
    error: str | None,
    code: int | None,
) -> Output:
    text = data if isinstance(data, str) else encode_json(data).decode()
    fields: dict[str, Any] = {"data": text + "\n", "last": last}
    if error:
        fields["error"] = error
    if code:
        fields["code"] = code
    output = Output().add_property("Content-Type", content_type)
    for name, value in properties.items():
        output.add_property(name, value)
    return output.add(Output.binary_encode(fields))
