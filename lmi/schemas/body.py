"""The bodies as pydantic models: parsed once per request, and the source of the OpenAPI document.

Types are strict: a text is not a number and `true` is not 1. A `null` counts as absent, as it does
in the reference. Fields that no model names are kept in `model_extra` and reported by the caller.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, WithJsonSchema

MAX_NEW_TOKENS = 2**31 - 1  # token counts travel as 32-bit numbers
MAX_SEED = 2**63 - 1  # seeds travel as signed 64-bit numbers
MAX_STOPS = 1024  # matching costs time for every token of every request in the batch
MAX_STOP_LENGTH = 1024  # characters; so much text is held back while a stop may be forming
MAX_CHOICES = 128  # each choice occupies a place in the batch
MAX_TOP_TOKENS = 20  # each one is sorted, decoded and sent for every token
MAX_INPUTS = 1024  # each input is a request of its own


def _text_as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _digits_as_number(value: object) -> object:
    # The reference reads a seed with int(), and Java's own seeds arrive as text.
    if isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isdecimal():
        return int(value)
    return value


_Count = Annotated[int, Field(strict=True)]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Stop = Annotated[str, Field(strict=True, min_length=1, max_length=MAX_STOP_LENGTH)]
_Stops = Annotated[
    list[_Stop],
    Field(max_length=MAX_STOPS),
    BeforeValidator(_text_as_list),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class LmiParameters(BaseModel):
    """Generation parameters. What is absent (or null) has the default that its text names."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    max_new_tokens: _Count | None = Field(
        None, ge=1, le=MAX_NEW_TOKENS, description="Tokens to generate at most. Default: 30."
    )
    min_new_tokens: _Count | None = Field(
        None, ge=0, le=MAX_NEW_TOKENS, description="No end before so many tokens. Default: 0."
    )
    do_sample: StrictBool | None = Field(
        None,
        description="false: greedy. true: sample. Absent: sample if a temperature is given "
        "(0.36), never (0.25), always (async).",
    )
    temperature: _Number | None = Field(
        None, ge=0, description="Randomness of sampling; 0 is greedy. Default when sampling: 1."
    )
    top_k: _Count | None = Field(
        None, ge=-1, le=MAX_NEW_TOKENS, description="Sample from the k most likely; 0 or -1: all."
    )
    top_p: _Number | None = Field(
        None, gt=0, le=1, description="Sample from the smallest set with this probability mass."
    )
    min_p: _Number | None = Field(
        None, ge=0, le=1, description="Drop tokens below this share of the likeliest one's."
    )
    repetition_penalty: _Number | None = Field(
        None, gt=0, le=100, description="Above 1 discourages tokens seen before. Default: 1."
    )
    presence_penalty: _Number | None = Field(
        None, ge=-2, le=2, description="Subtracted once from tokens generated before."
    )
    frequency_penalty: _Number | None = Field(
        None, ge=-2, le=2, description="Subtracted for each time a token was generated before."
    )
    seed: (
        Annotated[_Count, Field(ge=-MAX_SEED - 1, le=MAX_SEED), BeforeValidator(_digits_as_number)]
        | None
    ) = Field(None, description="The same seed gives the same tokens. Default: random.")
    stop_sequences: _Stops | None = Field(
        None, description="Texts that end the generation; they are not part of the answer."
    )
    stop: _Stops | None = Field(None, description="The same as stop_sequences; both are united.")
    stop_token_ids: Annotated[list[_Count], Field(max_length=MAX_STOPS)] | None = Field(
        None, description="Token ids that end the generation."
    )
    include_stop_str_in_output: StrictBool | None = Field(
        None, description="Keep the matched stop sequence in the answer. Default: false."
    )
    ignore_eos_token: StrictBool | None = Field(
        None, description="Go on after an end-of-sequence token. Default: false."
    )
    skip_special_tokens: StrictBool | None = Field(
        None, description="Leave special tokens out of the text. Default: true."
    )
    return_full_text: StrictBool | None = Field(
        None, description="Put the prompt before the answer. Default: false."
    )
    details: StrictBool | None = Field(
        None, description="Add `details`: finish reason, tokens, log probabilities."
    )
    decoder_input_details: StrictBool | None = Field(
        None, description="With details: the prompt's tokens as `prefill`. Default: false."
    )
    top_n_tokens: _Count | None = Field(
        None,
        ge=0,
        le=MAX_TOP_TOKENS,
        description="With details: the likeliest tokens of each step.",
    )
    logprobs: _Count | None = Field(
        None, ge=0, le=MAX_TOP_TOKENS, description="Accepted; log probabilities come with details."
    )
    n: _Count | None = Field(
        None, ge=1, le=MAX_CHOICES, description="Answers to return. Default: best_of, else 1."
    )
    best_of: _Count | None = Field(
        None, ge=1, le=MAX_CHOICES, description="Answers to generate; the n best are returned."
    )
    truncate: _Count | None = Field(
        None, ge=1, le=MAX_NEW_TOKENS, description="Keep only so many tokens of the prompt's end."
    )
    output_formatter: Annotated[str, Field(strict=True)] | None = Field(
        None, description="json, jsonlines, sse or none. Default: jsonlines if streamed, else json."
    )


_Text = Annotated[str, Field(strict=True, min_length=1)]


class LmiBody(BaseModel):
    """A generation request of LMI's own dialect."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    inputs: _Text | Annotated[list[_Text], Field(min_length=1, max_length=MAX_INPUTS)] = Field(
        description="The prompt, or a list of prompts that are answered in order.",
        examples=["The capital of France is"],
    )
    parameters: LmiParameters | None = Field(None, description="How to generate.")
    stream: StrictBool | None = Field(None, description="Answer token by token. Default: false.")
    adapters: _Text | Annotated[list[_Text], Field(max_length=MAX_INPUTS)] | None = Field(
        None, description="A registered adapter to use."
    )
    model: str | None = Field(None, description="Accepted and not used: the path names the model.")
