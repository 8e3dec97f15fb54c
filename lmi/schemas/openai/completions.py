"""A completions body becomes a ParsedRequest."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from lmi.core import Route
from lmi.schemas.config import SchemaConfig
from lmi.schemas.errors import bad_payload
from lmi.schemas.openai.answer import Answer, fresh
from lmi.schemas.openai.completion_body import CompletionBody
from lmi.schemas.openai.completion_reply import CompletionStream, CompletionWhole
from lmi.schemas.openai.fields import review, stream_options
from lmi.schemas.openai.request import Origin, content_type
from lmi.schemas.parsed import ParsedRequest
from lmi.schemas.sampling import Builder
from lmi.schemas.serving import Serving

DEFAULT_MAX_TOKENS = 16  # OpenAI's and vLLM's


def parse_completions(
    body: bytes,
    headers: Mapping[str, str],
    config: SchemaConfig,
    route: Route,
    serving: Serving,
) -> ParsedRequest:
    """Read a completions body. Raises BadPayload, UnknownModel."""
    origin = Origin(headers, config, route, serving)
    request = origin.validate(CompletionBody, body, "prompt")
    voice = origin.voice
    ignored = review(voice, request, config.strict_parameters)
    origin.check_model(request)
    frame = origin.frame(bool(request.stream))
    usage = stream_options(voice, request)
    prompts = _prompts(request)
    echo = tuple(each if isinstance(each, str) else None for each in prompts)
    # The prompt's own tokens are wanted for their probabilities, or because only ids are known.
    prompt_tokens = bool(request.echo) and (request.logprobs is not None or None in echo)
    sampling = Builder(voice)(
        request,
        temperature=1.0 if request.temperature is None else request.temperature,
        most=("max_tokens", request.max_tokens or DEFAULT_MAX_TOKENS),
        least=("min_tokens", request.min_tokens or 0),
        ignore_eos=bool(request.ignore_eos),
        logprobs=request.logprobs,
        prompt_logprobs=prompt_tokens,
        prompt_top=(request.logprobs or 0) if prompt_tokens else 0,
    )
    origin.check_choices(sampling, frame)
    if frame is not None and prompt_tokens and sampling.n > 1:
        raise bad_payload(
            voice, "echo: expected n=1 when streaming with logprobs or token ids.", "echo"
        )
    name, created = fresh("cmpl")
    answer = Answer(
        id=name,
        created=created,
        model=origin.model(request),
        inputs=len(prompts),
        choices=sampling.n,
        logprobs=request.logprobs,
        frame=frame,
        usage=usage,
        end=origin.end,
        echo=echo if request.echo else (),
    )
    return ParsedRequest(
        inputs=prompts,
        sampling=sampling,
        streamed=frame is not None,
        content_type=content_type(frame),
        reply=partial(CompletionWhole, answer)
        if frame is None
        else partial(CompletionStream, answer, frame),
        truncate_prompt_tokens=request.truncate_prompt_tokens,
        adapter=origin.adapter(request),
        ignored=ignored,
        add_special_tokens=request.add_special_tokens is not False,
    )


def _prompts(request: CompletionBody) -> tuple[str | tuple[int, ...], ...]:
    prompt = request.prompt
    if isinstance(prompt, str):
        return (prompt,)
    if isinstance(prompt[0], int):
        return (tuple([each for each in prompt if isinstance(each, int)]),)
    return tuple([each if isinstance(each, str) else tuple(each) for each in prompt])
