"""The body of a chat request as pydantic models, and the source of the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictBool

from lmi.schemas.fields import CONFIG, MAX_NEW_TOKENS, MAX_TOP_TOKENS, Count, FullText, Text
from lmi.schemas.openai.fields import OpenAIFields

MAX_MESSAGES = 4096  # the template is run over all of them before anything else is done
MAX_PARTS = 1024  # of one message


class Part(BaseModel):
    """A part of a message's content; those with text are read."""

    model_config = CONFIG

    type: FullText = Field(description="text")
    text: Text | None = Field(None, description="The part's text.")


class Message(BaseModel):
    """One message. What else it holds is there for the template to see."""

    model_config = CONFIG

    role: FullText = Field(description="system, user, assistant, tool, or what the template knows.")
    content: Text | Annotated[list[Part], Field(max_length=MAX_PARTS)] | None = Field(
        None, description="The text, or parts of it."
    )
    tool_calls: list[dict[str, Any]] | None = Field(
        None, description="Calls that the assistant made."
    )


class ChatBody(OpenAIFields):
    """A chat request as OpenAI has it, with vLLM's extensions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)] = Field(
        description="The conversation so far.",
        examples=[[{"role": "user", "content": "What is the capital of France?"}]],
    )
    max_completion_tokens: Count | None = Field(
        None,
        ge=1,
        le=MAX_NEW_TOKENS,
        description="Tokens to generate at most. Default: what the context has room for.",
    )
    logprobs: StrictBool | None = Field(
        None, description="Show the log probability of each token. Default: false."
    )
    top_logprobs: Count | None = Field(
        None, ge=0, le=MAX_TOP_TOKENS, description="With logprobs: the likeliest tokens of each."
    )
    tools: list[dict[str, Any]] | None = Field(
        None, description="Tools that the template shows to the model; see tool_choice."
    )
    tool_choice: Text | dict[str, Any] | None = Field(
        None, description="With tools: none. Calls are not read out of answers yet."
    )
    documents: list[dict[str, Any]] | None = Field(
        None, description="Documents that the template shows to the model."
    )
    add_generation_prompt: StrictBool | None = Field(
        None, description="Begin the assistant's answer. Default: true."
    )
    continue_final_message: StrictBool | None = Field(
        None, description="Go on with the last message instead of answering it. Default: false."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="More variables for the template, such as enable_thinking."
    )
    reasoning_effort: Text | None = Field(
        None, description="A variable for templates that know it: low, medium, high."
    )
    modalities: list[Text] | None = Field(None, description='["text"].')
