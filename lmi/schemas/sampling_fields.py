"""Generation parameters that all dialects spell alike."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictBool

from lmi.schemas.fields import (
    CONFIG,
    MAX_CHOICES,
    MAX_NEW_TOKENS,
    MAX_STOPS,
    BadWords,
    Count,
    LogitBias,
    Number,
    Penalty,
    Seed,
    Stops,
    TokenIds,
)
from lmi.schemas.grammar import GuidedFields


class SamplingFields(GuidedFields):
    """What is absent (or null) has the default that its text names."""

    model_config = CONFIG

    temperature: Number | None = Field(
        None, ge=0, description="Randomness of sampling; 0 is greedy. Default when sampling: 1."
    )
    top_k: Count | None = Field(
        None, ge=-1, le=MAX_NEW_TOKENS, description="Sample from the k most likely; 0 or -1: all."
    )
    top_p: Number | None = Field(
        None, gt=0, le=1, description="Sample from the smallest set with this probability mass."
    )
    min_p: Number | None = Field(
        None, ge=0, le=1, description="Drop tokens below this share of the likeliest one's."
    )
    repetition_penalty: Number | None = Field(
        None, gt=0, le=100, description="Above 1 discourages tokens seen before. Default: 1."
    )
    presence_penalty: Penalty | None = Field(
        None, description="Subtracted once from tokens generated before."
    )
    frequency_penalty: Penalty | None = Field(
        None, description="Subtracted for each time a token was generated before."
    )
    seed: Seed | None = Field(
        None, description="The same seed gives the same tokens. Default: random."
    )
    n: Count | None = Field(
        None, ge=1, le=MAX_CHOICES, description="Answers to return. Default: best_of, else 1."
    )
    best_of: Count | None = Field(
        None, ge=1, le=MAX_CHOICES, description="Answers to generate; the n best are returned."
    )
    stop: Stops | None = Field(
        None, description="Texts that end the generation; they are not part of the answer."
    )
    stop_token_ids: Annotated[list[Count], Field(max_length=MAX_STOPS)] | None = Field(
        None, description="Token ids that end the generation."
    )
    include_stop_str_in_output: StrictBool | None = Field(
        None, description="Keep the matched stop sequence in the answer. Default: false."
    )
    skip_special_tokens: StrictBool | None = Field(
        None, description="Leave special tokens out of the text. Default: true."
    )
    logit_bias: LogitBias | None = Field(
        None, description="What is added to the logit of a token, by its id as a text."
    )
    allowed_token_ids: TokenIds | None = Field(
        None, description="Generate these tokens only, by their ids."
    )
    bad_words: BadWords | None = Field(None, description="Texts that are not generated.")
