"""LMI's own body becomes a ParsedRequest: validated once, the rest is choosing the form's parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from lmi.core import Grammar
from lmi.core.types import GrammarKind
from lmi.schemas import form_025, form_036, form_async
from lmi.schemas.adapter import adapter_of
from lmi.schemas.body import LmiBody, LmiParameters
from lmi.schemas.config import Form, SchemaConfig
from lmi.schemas.dialect import Dialect
from lmi.schemas.errors import bad_payload
from lmi.schemas.grammar import of_structured
from lmi.schemas.openai.request import FORMATTERS
from lmi.schemas.parsed import ParsedRequest, Reply
from lmi.schemas.pieces import compose
from lmi.schemas.reply import WholeReply
from lmi.schemas.sampling import Builder
from lmi.schemas.serving import Serving
from lmi.schemas.shape import Shape
from lmi.schemas.unknown import Ignored, review
from lmi.schemas.validate import validate

CONTENT_TYPES = {
    "json": "application/json",
    "jsonlines": "application/jsonlines",
    "sse": "text/event-stream",
    "none": "text/plain",
}

# The reference knows these for other dialects; here they would give another answer than asked for.
_OTHER_FORMATTERS = (*FORMATTERS, "3p", "3p_stream")

_DIALECTS: dict[Form, Dialect] = {
    "0.36": form_036.DIALECT,
    "0.25": form_025.DIALECT,
    "async": form_async.DIALECT,
}

DEFAULT_MAX_NEW_TOKENS = 30  # documented for all versions

_NO_PARAMETERS = LmiParameters.model_validate({})


def parse_generate(
    body: bytes, headers: Mapping[str, str], config: SchemaConfig, serving: Serving
) -> ParsedRequest:
    """Read a request body.

    headers: with lower-case names. Raises BadPayload, which names the field that is at fault.
    """
    form = config.form
    dialect = _DIALECTS[form]
    if config.tgi_compat and form == "0.36":
        dialect = form_036.TGI
    request = validate(form, body, headers.get("content-type", ""))
    parameters = request.parameters or _NO_PARAMETERS
    left_out = review(form, request, parameters)
    formatter = _formatter(request, parameters, dialect, config, left_out)
    if config.strict_parameters and left_out:
        shown = ", ".join(str(each) for each in left_out)
        raise bad_payload(form, f"Unknown parameters: {shown}.", f"parameters.{left_out[0].name}")
    stream = dialect.streams.get(formatter)
    if formatter == "json" and not request.stream:
        stream = None
    if stream is not None:
        _check_streamable(request, parameters, dialect, form)

    details = dialect.details if parameters.details is None else parameters.details
    several = max(parameters.n or 1, parameters.best_of or 1) > 1
    prefill = bool(parameters.decoder_input_details) or parameters.prompt_logprobs is not None
    sampling = Builder(form, "parameters.")(
        parameters,
        temperature=dialect.temperature(parameters),
        most=("max_new_tokens", parameters.max_new_tokens or DEFAULT_MAX_NEW_TOKENS),
        least=("min_new_tokens", parameters.min_new_tokens or 0),
        ignore_eos=bool(parameters.ignore_eos_token),
        logprobs=(parameters.top_n_tokens or 0) if stream or details or several else None,
        prompt_logprobs=prefill,
        more_stops=parameters.stop_sequences,
        more_bad_words=parameters.bad_sequences,
        more_grammars=_grammars(parameters, form),
    )
    listed = isinstance(request.inputs, list)
    shape = Shape(
        prompts=(request.inputs,) if isinstance(request.inputs, str) else tuple(request.inputs),
        listed=listed,
        choices=sampling.n,
        full_text=bool(parameters.return_full_text),
        details=details,
        prefill=prefill,
        top_tokens=bool(parameters.top_n_tokens),
        seed=parameters.seed,
        words=dialect.words,
        logprob_key=dialect.logprob_key,
        mark_special=dialect.mark_special,
    )
    reply: Callable[[], Reply] = partial(_whole, shape, dialect)
    return ParsedRequest(
        inputs=shape.prompts,
        sampling=sampling,
        streamed=stream is not None,
        content_type=CONTENT_TYPES[formatter],
        reply=reply if stream is None else partial(stream, shape),
        truncate_prompt_tokens=parameters.truncate,
        adapter=adapter_of(form, headers, serving, request.adapters, request.model),
        ignored=tuple(left_out),
    )


def _formatter(
    request: LmiBody,
    parameters: LmiParameters,
    dialect: Dialect,
    config: SchemaConfig,
    left_out: list[Ignored],
) -> str:
    """The formatter's name. One that can't be chosen is reported and goes by `stream`."""
    chosen = parameters.output_formatter or (config.output_formatter if dialect.chooses else None)
    if chosen in CONTENT_TYPES and dialect.chooses:
        return chosen
    if chosen in FORMATTERS and parameters.output_formatter is None:
        chosen = None  # the model's choice for its chats
    if chosen in _OTHER_FORMATTERS:
        raise bad_payload(
            config.form,
            f"parameters.output_formatter={chosen!r}: expected json, jsonlines, sse or none.",
            "parameters.output_formatter",
        )
    if chosen is not None:
        left_out.append(Ignored("output_formatter", known=True))
    return dialect.stream_formatter if request.stream else "json"


def _check_streamable(
    request: LmiBody, parameters: LmiParameters, dialect: Dialect, form: Form
) -> None:
    if isinstance(request.inputs, list):
        raise bad_payload(
            form, "inputs: a list of inputs can't be streamed; send one text.", "inputs"
        )
    if dialect.streams_choices:
        return
    for field, value in (("n", parameters.n), ("best_of", parameters.best_of)):
        if value is not None and value > 1:
            raise bad_payload(
                form,
                f"parameters.{field}={value}: expected 1 when streaming.",
                f"parameters.{field}",
            )


def _grammars(parameters: LmiParameters, form: Form) -> dict[str, Grammar | None]:
    """What the text must match, in the spellings that only this dialect has."""
    found = of_structured(parameters.guided_decoding, "parameters.guided_decoding.")
    tgi = parameters.grammar
    if tgi is None:
        return found
    if tgi.type not in ("json", "regex"):
        field = "parameters.grammar.type"
        raise bad_payload(form, f"{field}: expected json or regex.", field)
    text = tgi.value if isinstance(tgi.value, str) else compose(tgi.value)
    kind: GrammarKind = "json" if tgi.type == "json" else "regex"
    return {**found, "parameters.grammar": Grammar(kind, text)}


def _whole(shape: Shape, dialect: Dialect) -> Reply:
    return WholeReply(
        inputs=len(shape.prompts) if shape.listed else None,
        choices=shape.choices,
        keep_tokens=shape.details or shape.choices > 1,
        render=partial(dialect.render, shape),
        render_error=dialect.render_error,
        end=dialect.end,
    )
