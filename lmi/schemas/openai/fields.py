"""The fields that chat and completions share, and what is said about names beyond them."""

from __future__ import annotations

from pydantic import BaseModel, Field, StrictBool

from lmi.schemas.errors import Voice, bad_payload
from lmi.schemas.fields import CONFIG, MAX_NEW_TOKENS, Count, Text
from lmi.schemas.sampling_fields import SamplingFields
from lmi.schemas.unknown import Ignored, ignored


class StreamOptions(BaseModel):
    """What a stream has besides its deltas."""

    model_config = CONFIG

    include_usage: StrictBool | None = Field(
        None, description="End with a chunk that counts the tokens. Default: false."
    )


class OpenAIFields(SamplingFields):
    """What is absent (or null) has the default that its text names."""

    model: Text | None = Field(
        None, description="The model's name, or that of an adapter, which selects it."
    )
    max_tokens: Count | None = Field(
        None, ge=1, le=MAX_NEW_TOKENS, description="Tokens to generate at most."
    )
    min_tokens: Count | None = Field(
        None, ge=0, le=MAX_NEW_TOKENS, description="No end before so many tokens. Default: 0."
    )
    stream: StrictBool | None = Field(None, description="Answer piece by piece. Default: false.")
    stream_options: StreamOptions | None = Field(None, description="With stream.")
    ignore_eos: StrictBool | None = Field(
        None, description="Go on after an end-of-sequence token. Default: false."
    )
    truncate_prompt_tokens: Count | None = Field(
        None, ge=1, le=MAX_NEW_TOKENS, description="Keep only so many tokens of the prompt's end."
    )
    add_special_tokens: StrictBool | None = Field(
        None,
        description="Let the tokenizer add its special tokens to the prompt. Default: true for "
        "prompts, false for messages, whose template writes its own.",
    )
    adapters: Text | None = Field(None, description="A registered adapter to use.")


# Accepted in silence: they are about the client, or about a service that this is not, and leave the
# answer as it is.
WITHOUT_EFFECT = frozenset(
    {
        "guided_decoding_backend",
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_retention",
        "request_id",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)

# They change an answer or its form only a little, so that leaving them out and saying so is better
# than refusing.
NOT_HONOURED = frozenset(
    {
        "cache_salt",
        "detokenize",
        "early_stopping",
        "include_reasoning",
        "length_penalty",
        "priority",
        "return_token_ids",
        "return_tokens_as_token_ids",
        "session_id",
        "spaces_between_special_tokens",
        "thinking_token_budget",
        "verbosity",
        "vllm_xargs",
    }
)

# They ask for another answer: dropping them would be a wrong one. What is empty asks for nothing.
NOT_AVAILABLE = {
    "audio": "audio is not available",
    "chat_template": "a request can't bring a template: set option.chat_template for the model",
    "echo": "expected a completion: an answer of a chat has no prompt before it",
    "function_call": "calls of functions are not read out of answers yet",
    "functions": "calls of functions are not read out of answers yet",
    "inputs": "expected either this field or the dialect's own",
    "kv_transfer_params": "caches are not transferred",
    "logprob_token_ids": "expected top_logprobs",
    "max_gen_len": "Bedrock's form is not available; expected max_tokens",
    "mm_processor_kwargs": "images are not available",
    "prediction": "predicted output is not available",
    "prompt_embeds": "expected the prompt as a text or as token ids",
    "prompt_logprobs": "expected echo and logprobs of a completion",
    "suffix": "text can't be inserted: expected the prompt alone",
    "use_beam_search": "beam search is not available; expected best_of or n with a temperature",
    "web_search_options": "searching is not available",
}


def review(
    voice: Voice, body: OpenAIFields, strict: bool, allowed: frozenset[str] = frozenset()
) -> tuple[Ignored, ...]:
    """What a body holds beyond the known fields.

    strict: refuse what would be ignored. allowed: names that this dialect reads by itself. Raises
    BadPayload.
    """
    extra = {
        name: value
        for name, value in (body.model_extra or {}).items()
        if name not in WITHOUT_EFFECT and name not in allowed
    }
    for name in [name for name in extra if name in NOT_AVAILABLE]:
        if extra.pop(name):
            raise bad_payload(voice, f"{name}: {NOT_AVAILABLE[name]}.", name)
    found = ignored(extra, frozenset(type(body).model_fields), NOT_HONOURED) if extra else []
    if body.stream_options is not None:
        found += [
            Ignored(f"stream_options.{each.name}", each.nearest)
            for each in ignored(
                body.stream_options.model_extra or {}, frozenset({"include_usage"}), ()
            )
        ]
    if strict and found:
        shown = ", ".join(map(str, found))
        raise bad_payload(voice, f"Unknown parameters: {shown}.", found[0].name)
    return tuple(found)


def stream_options(voice: Voice, body: OpenAIFields) -> bool:
    """Whether usage is streamed; BadPayload for options of a stream that is not asked for."""
    if body.stream_options is None:
        return False
    if not body.stream:
        raise bad_payload(
            voice, "stream_options: expected stream to be true with it.", "stream_options"
        )
    return bool(body.stream_options.include_usage)
