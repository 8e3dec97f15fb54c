"""A chat body becomes a ParsedRequest: its prompt is what the model's template makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson

from lmi.core import BadPayload, Route
from lmi.schemas.config import SchemaConfig
from lmi.schemas.errors import bad_payload
from lmi.schemas.openai.answer import Answer, fresh
from lmi.schemas.openai.chat_body import ChatBody, Message
from lmi.schemas.openai.chat_reply import ChatStream, ChatWhole
from lmi.schemas.openai.fields import review, stream_options
from lmi.schemas.openai.request import GREATEST, Origin, content_type
from lmi.schemas.parsed import ParsedRequest
from lmi.schemas.sampling import Builder
from lmi.schemas.serving import Serving

_RESERVED = frozenset({"messages", "tools", "documents", "add_generation_prompt"})


def parse_chat(
    body: bytes,
    headers: Mapping[str, str],
    config: SchemaConfig,
    route: Route,
    serving: Serving,
) -> ParsedRequest:
    """Read a chat body. Raises BadPayload, UnknownModel."""
    origin = Origin(headers, config, route, serving)
    request = origin.validate(ChatBody, body, "messages")
    voice = origin.voice
    ignored = review(voice, request, config.strict_parameters)
    origin.check_model(request)
    _check_tools(origin, request)
    frame = origin.frame(bool(request.stream))
    usage = stream_options(voice, request)
    most = request.max_completion_tokens or request.max_tokens or GREATEST
    if request.top_logprobs and not request.logprobs:
        raise bad_payload(voice, "top_logprobs: expected logprobs to be true.", "top_logprobs")
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    sampling = Builder(voice)(
        request,
        temperature=1.0 if request.temperature is None else request.temperature,
        most=("max_completion_tokens" if request.max_completion_tokens else "max_tokens", most),
        least=("min_tokens", request.min_tokens or 0),
        ignore_eos=bool(request.ignore_eos),
        logprobs=logprobs,
        prompt_logprobs=False,
    )
    origin.check_choices(sampling, frame)
    name, created = fresh("chatcmpl")
    answer = Answer(
        id=name,
        created=created,
        model=origin.model(request),
        inputs=1,
        choices=sampling.n,
        logprobs=logprobs,
        frame=frame,
        usage=usage,
        end=origin.end,
    )
    return ParsedRequest(
        inputs=(_prompt(origin, request),),
        sampling=sampling,
        streamed=frame is not None,
        content_type=content_type(frame),
        reply=partial(ChatWhole, answer) if frame is None else partial(ChatStream, answer, frame),
        truncate_prompt_tokens=request.truncate_prompt_tokens,
        adapter=origin.adapter(request),
        ignored=ignored,
        add_special_tokens=bool(request.add_special_tokens),
    )


def _check_tools(origin: Origin, request: ChatBody) -> None:
    """Only what can be honoured: a model may see tools, but its calls would come as plain text."""
    if request.modalities and request.modalities != ["text"]:
        raise bad_payload(origin.voice, 'modalities: expected ["text"].', "modalities")
    if request.tools and request.tool_choice != "none":
        raise bad_payload(
            origin.voice,
            "tools: calls are not read out of answers yet; expected tool_choice to be 'none', with "
            "which the model sees the tools and answers in text.",
            "tools",
        )


def _prompt(origin: Origin, request: ChatBody) -> str:
    voice = origin.voice
    chat = origin.serving.chat
    if chat is None:
        raise bad_payload(
            voice,
            "messages: the model has no chat template; set option.chat_template to a file with "
            "one, or send the prompt itself.",
            "messages",
        )
    if request.continue_final_message and request.add_generation_prompt:
        raise bad_payload(
            voice,
            "continue_final_message: expected add_generation_prompt not to be true.",
            "continue_final_message",
        )
    variables: dict[str, Any] = dict(request.chat_template_kwargs or {})
    taken = sorted(_RESERVED & variables.keys())
    if taken:
        field = f"chat_template_kwargs.{taken[0]}"
        raise bad_payload(voice, f"{field}: expected {taken[0]!r} as a field of the body.", field)
    if request.reasoning_effort is not None:
        variables.setdefault("reasoning_effort", request.reasoning_effort)
    messages = [_message(origin, message, place) for place, message in enumerate(request.messages)]
    try:
        return chat.render(
            messages,
            tools=request.tools or None,
            documents=request.documents or None,
            add_generation_prompt=request.add_generation_prompt is not False
            and not request.continue_final_message,
            continue_final_message=bool(request.continue_final_message),
            variables=variables,
        )
    except BadPayload as error:
        raise bad_payload(voice, str(error), error.field) from None


def _message(origin: Origin, message: Message, place: int) -> dict[str, Any]:
    """A message as templates know it."""
    shown = message.model_dump(exclude_none=True)
    content = message.content
    if isinstance(content, list):
        for number, part in enumerate(content):
            if part.type not in ("text", "input_text", "output_text") or part.text is None:
                field = f"messages[{place}].content[{number}]"
                raise bad_payload(
                    origin.voice,
                    f"{field}: a part of type {part.type[:40]!r} is not available; expected type "
                    "text with the field 'text'.",
                    field,
                )
        shown["content"] = [{"type": "text", "text": part.text} for part in content]
    elif content is None:
        shown["content"] = ""
        if not message.tool_calls and message.role != "tool":
            field = f"messages[{place}].content"
            raise bad_payload(origin.voice, f"{field}: expected a text.", field)
    if message.tool_calls:
        shown["tool_calls"] = [_call(call) for call in message.tool_calls]
    return shown


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """A call with its arguments as an object: clients send them as a text, templates write them."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = orjson.loads(function["arguments"] or "{}")
    except orjson.JSONDecodeError:
        return call
    return {**call, "function": {**function, "arguments": arguments}}
