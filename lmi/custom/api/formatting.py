"""LMI's output formats over a `TextGenerationOutput`, for users' own rolling batches.

Built-in engines answer through `lmi.schemas`; the fields are the same here, and an answer that is
not streamed is released at its end, as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from lmi.custom.api.request_io import Sequence, TextGenerationOutput, Token

Formatter = Callable[[TextGenerationOutput], str]


def get_generated_text(sequence: Sequence, request_output: TextGenerationOutput) -> str:
    """A sequence's text, after the prompt where the request asks for the full text."""
    text = "".join(token.text for token in sequence.tokens)
    if request_output.input.parameters.get("return_full_text"):
        return str(getattr(request_output.input, "input_text", "")) + text
    return text


def get_sequence_details(
    request_output: TextGenerationOutput, sequence_index: int
) -> dict[str, Any]:
    """The `details` of one sequence."""
    sequence = request_output.sequences[sequence_index]
    details: dict[str, Any] = {
        "finish_reason": sequence.finish_reason,
        "generated_tokens": len(sequence.tokens),
        "tokens": request_output.get_tokens_as_dict(sequence_index),
    }
    return details | _extras(request_output, sequence_index)


def json_formatter(request_output: TextGenerationOutput) -> str:
    """`json`: nothing until the request is finished, then one object (for TGI a list of it)."""
    if not request_output.finished:
        return ""
    best = request_output.best_sequence_index
    sequence = request_output.sequences[best]
    answer: dict[str, Any] = {"generated_text": get_generated_text(sequence, request_output)}
    others = request_output.other_sequences_indices
    if _detailed(request_output) or others:
        details = {"inputs": getattr(request_output.input, "input_text", None)}
        answer["details"] = details | get_sequence_details(request_output, best)
        if others:
            answer["details"]["best_of_sequences"] = [
                get_sequence_details(request_output, index)
                | {
                    "generated_text": get_generated_text(
                        request_output.sequences[index], request_output
                    )
                }
                for index in others
            ]
    elif sequence.finish_reason == "error":
        answer["details"] = {"finish_reason": "error"}
    text = json.dumps(answer, ensure_ascii=False)
    return f"[{text}]" if request_output.input.tgi_compat else text


def jsonlines_formatter(request_output: TextGenerationOutput) -> str:
    """`jsonlines`: a line for each token that was not read; the last one has the whole text."""
    sequence = request_output.sequences[request_output.best_sequence_index]
    lines = []
    for token, last in _unread(sequence):
        tgi = request_output.input.tgi_compat
        line: dict[str, Any] = {"token": token.as_tgi_dict() if tgi else token.as_dict()}
        if last:
            line["generated_text"] = get_generated_text(sequence, request_output)
            if _detailed(request_output):
                line["details"] = {
                    "finish_reason": sequence.finish_reason,
                    "generated_tokens": len(sequence.tokens),
                    "inputs": getattr(request_output.input, "input_text", None),
                } | _extras(request_output, request_output.best_sequence_index)
            elif sequence.finish_reason == "error":
                line["details"] = {"finish_reason": "error"}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


def sse_formatter(request_output: TextGenerationOutput) -> str:
    """`sse`: the same lines as server-sent events."""
    lines = jsonlines_formatter(request_output).splitlines()
    return "".join(f"data: {line}\n\n" for line in lines)


def text_formatter(request_output: TextGenerationOutput) -> str:
    """`none`: the bare text of the tokens that were not read."""
    sequence = request_output.sequences[request_output.best_sequence_index]
    return "".join(token.text for token, _ in _unread(sequence))


FORMATTERS: Final[dict[str, tuple[Formatter, str]]] = {
    "json": (json_formatter, "application/json"),
    "jsonlines": (jsonlines_formatter, "application/jsonlines"),
    "sse": (sse_formatter, "text/event-stream"),
    "none": (text_formatter, "text/plain"),
}


def get_output_formatter(
    output_formatter: str | Callable[..., Any] | None, stream: bool, tgi_compat: bool = False
) -> tuple[Callable[..., Any], str | None]:
    """A formatter by its name, and its content type; a user's function is returned as it is.

    Unset, it is `json`, of a stream `jsonlines` (for TGI `sse`). Raises ValueError for a name that
    is unknown here.
    """
    if callable(output_formatter):
        return output_formatter, None
    if output_formatter is None:
        streamed = "sse" if tgi_compat else "jsonlines"
        output_formatter = streamed if stream else "json"
    if output_formatter not in FORMATTERS:
        raise ValueError(
            f"output_formatter={output_formatter!r}: expected one of {', '.join(FORMATTERS)}"
        )
    return FORMATTERS[output_formatter]


def _unread(sequence: Sequence) -> Iterator[tuple[Token, bool]]:
    """The tokens that were not read, each with whether it is the last."""
    while True:
        token, _, _, last = sequence.get_next_token()
        if token is None:
            return
        yield token, last


def _detailed(request_output: TextGenerationOutput) -> bool:
    request = request_output.input
    return bool(request.parameters.get("details", request.tgi_compat))


def _extras(request_output: TextGenerationOutput, sequence_index: int) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    parameters = request_output.input.parameters
    if parameters.get("decoder_input_details"):
        extras["prefill"] = request_output.get_prompt_tokens_as_dict()
    if (parameters.get("top_n_tokens") or 0) > 0:
        extras["top_tokens"] = request_output.get_top_tokens_as_dict(sequence_index)
    return extras
