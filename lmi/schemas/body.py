"""LMI's own body as pydantic models: parsed once, and the source of the OpenAPI document."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, StrictBool

from lmi.schemas.fields import (
    CONFIG,
    MAX_INPUTS,
    MAX_NEW_TOKENS,
    MAX_TOP_TOKENS,
    BadWords,
    Count,
    FullText,
    Stops,
    Text,
)
from lmi.schemas.grammar import StructuredOutputs
from lmi.schemas.sampling_fields import SamplingFields


class TgiGrammar(BaseModel):
    """text-generation-inference's way to say what the text must match."""

    model_config = CONFIG

    type: Text = Field(description="json or regex.")
    value: dict[str, object] | FullText = Field(description="The schema, or the expression.")


class LmiParameters(SamplingFields):
    """Generation parameters. What is absent (or null) has the default that its text names."""

    max_new_tokens: Count | None = Field(
        None, ge=1, le=MAX_NEW_TOKENS, description="Tokens to generate at most. Default: 30."
    )
    min_new_tokens: Count | None = Field(
        None, ge=0, le=MAX_NEW_TOKENS, description="No end before so many tokens. Default: 0."
    )
    do_sample: StrictBool | None = Field(
        None,
        description="false: greedy. true: sample. Absent: sample if a temperature is given "
        "(0.36), never (0.25), always (async).",
    )
    stop_sequences: Stops | None = Field(None, description="The same as stop; both are united.")
    ignore_eos_token: StrictBool | None = Field(
        None, description="Go on after an end-of-sequence token. Default: false."
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
    top_n_tokens: Count | None = Field(
        None,
        ge=0,
        le=MAX_TOP_TOKENS,
        description="With details: the likeliest tokens of each step.",
    )
    logprobs: Count | None = Field(
        None, ge=0, le=MAX_TOP_TOKENS, description="Accepted; log probabilities come with details."
    )
    truncate: Count | None = Field(
        None, ge=1, le=MAX_NEW_TOKENS, description="Keep only so many tokens of the prompt's end."
    )
    prompt_logprobs: Count | None = Field(
        None, ge=0, le=MAX_TOP_TOKENS, description="The same as decoder_input_details."
    )
    bad_sequences: BadWords | None = Field(None, description="The same as bad_words.")
    guided_decoding: StructuredOutputs | None = Field(
        None, description="The same as structured_outputs."
    )
    grammar: TgiGrammar | None = Field(None, description="text-generation-inference's grammar.")
    output_formatter: Text | None = Field(
        None, description="json, jsonlines, sse or none. Default: jsonlines if streamed, else json."
    )


class LmiBody(BaseModel):
    """A generation request of LMI's own dialect."""

    model_config = CONFIG

    inputs: FullText | Annotated[list[FullText], Field(min_length=1, max_length=MAX_INPUTS)] = (
        Field(
            description="The prompt, or a list of prompts that are answered in order.",
            examples=["The capital of France is"],
        )
    )
    parameters: LmiParameters | None = Field(None, description="How to generate.")
    stream: StrictBool | None = Field(None, description="Answer token by token. Default: false.")
    adapters: FullText | Annotated[list[FullText], Field(max_length=MAX_INPUTS)] | None = Field(
        None, description="A registered adapter to use."
    )
    model: str | None = Field(
        None, description="An adapter's name selects it; else the path names the model."
    )
