"""The body of a completions request as a pydantic model, and the source of the OpenAPI document."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictBool

from lmi.schemas.fields import MAX_INPUTS, MAX_TOP_TOKENS, Count, Text, TokenId
from lmi.schemas.openai.fields import OpenAIFields

MAX_PROMPT_IDS = 2**24  # longer than any context; the engine knows the model's own

_Ids = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_PROMPT_IDS)]


class CompletionBody(OpenAIFields):
    """A completions request as OpenAI has it, with vLLM's extensions."""

    prompt: (
        Text
        | _Ids
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
        | Annotated[list[_Ids], Field(min_length=1, max_length=MAX_INPUTS)]
    ) = Field(
        description="A text, token ids, or a list of either, each of which is answered.",
        examples=["The capital of France is"],
    )
    logprobs: Count | None = Field(
        None,
        ge=0,
        le=MAX_TOP_TOKENS,
        description="Show log probabilities, and those of so many of the likeliest tokens.",
    )
    echo: StrictBool | None = Field(
        None, description="Put the prompt before the answer. Default: false."
    )
