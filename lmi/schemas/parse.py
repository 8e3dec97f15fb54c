"""A body becomes a ParsedRequest: validated once, the rest is choosing the form's parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import orjson
from pydantic import ValidationError

from lmi.core import Finish, LmiError
from lmi.schemas import form_025, form_036, form_async
from lmi.schemas.assemble import Transcript
from lmi.schemas.body import LmiBody, LmiParameters
from lmi.schemas.config import SchemaConfig
from lmi.schemas.errors import bad_payload, from_validation
from lmi.schemas.parsed import ParsedRequest, Reply
from lmi.schemas.reply import WholeReply
from lmi.schemas.sampling import build
from lmi.schemas.shape import Shape
from lmi.schemas.unknown import BODY_NAMES, NOT_AVAILABLE, PARAMETER_NAMES, Ignored, ignored

ADAPTER_HEADER = "x-amzn-sagemaker-adapter-identifier"

CONTENT_TYPES = {
    "json": "application/json",
    "jsonlines": "application/jsonlines",
    "sse": "text/event-stream",
    "none": "text/plain",
}

_OTHER_DIALECTS = {"messages": "chat", "prompt": "OpenAI completions"}
_OTHER_FORMATTERS = ("json_chat", "jsonlines_chat", "sse_chat", "3p", "3p_stream")


def parse(body: bytes, headers: Mapping[str, str], config: SchemaConfig) -> ParsedRequest:
    """Read a request body.

    headers: with lower-case names. Raises BadPayload, which names the field that is at fault.
    """
    return _Parser(config).parse(body, headers)


class _Parser:
    """One parse: the configuration at hand for every error's prefix."""

    def __init__(self, config: SchemaConfig) -> None:
        self.config = config
        self.form = config.form

    def parse(self, body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
        request = self._validate(body, headers.get("content-type", ""))
        parameters = request.parameters or LmiParameters.model_construct()
        left_out = self._left_out(request, parameters)
        formatter, unknown = self._formatter(request, parameters)
        left_out += unknown
        if self.config.strict_parameters and left_out:
            shown = ", ".join(str(each) for each in left_out)
            raise bad_payload(
                self.form, f"Unknown parameters: {shown}.", f"parameters.{left_out[0].name}"
            )
        listed = isinstance(request.inputs, list)
        inputs = tuple(request.inputs) if isinstance(request.inputs, list) else (request.inputs,)
        streamed = self._streamed(request, formatter)
        self._check_streamable(request, parameters, formatter, streamed)
        return self._assemble(
            request, parameters, formatter, streamed, listed, inputs, headers, tuple(left_out)
        )

    def _validate(self, body: bytes, content_type: str) -> LmiBody:
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "text/plain":
            body = self._text_as_body(body)
        elif kind.startswith(("multipart/", "image/", "audio/", "video/", "tensor/", "text/csv")):
            raise bad_payload(
                self.form, f"Content-Type {kind!r}: expected application/json.", "content-type"
            )
        try:
            return LmiBody.model_validate_json(body)
        except ValidationError as error:
            raise self._other_dialect(body) or from_validation(self.form, error) from None

    def _text_as_body(self, body: bytes) -> bytes:
        try:
            return orjson.dumps({"inputs": body.decode()})
        except UnicodeDecodeError as error:
            raise bad_payload(self.form, f"The body is not UTF-8: {error.reason}.") from None

    def _other_dialect(self, body: bytes) -> LmiError | None:
        """A kinder word for a body that is right in a dialect that isn't served here."""
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(value, dict) or "inputs" in value:
            return None
        for name, dialect in _OTHER_DIALECTS.items():
            if name in value:
                return bad_payload(
                    self.form,
                    f"The field 'inputs' is missing; {dialect} ({name!r}) is not served.",
                    name,
                )
        return None

    def _left_out(self, request: LmiBody, parameters: LmiParameters) -> list[Ignored]:
        extra = parameters.model_extra or {}
        for name, value in extra.items():
            if name in NOT_AVAILABLE and value is not None:
                raise bad_payload(
                    self.form, f"parameters.{name}: {NOT_AVAILABLE[name]}.", f"parameters.{name}"
                )
        beams = extra.get("num_beams")
        if beams not in (None, 1):
            raise bad_payload(
                self.form,
                f"parameters.num_beams={beams!r:.20}: beam search is not available; expected 1, "
                "or best_of with sampling.",
                "parameters.num_beams",
            )
        names = [name for name in extra if name not in ("num_beams", *NOT_AVAILABLE)]
        found = ignored(request.model_extra or {}, BODY_NAMES | {"parameters"})
        return [*found, *ignored(names, PARAMETER_NAMES | {"stream"})]

    def _formatter(self, request: LmiBody, parameters: LmiParameters) -> tuple[str, list[Ignored]]:
        chosen = parameters.output_formatter or self.config.output_formatter
        if chosen in CONTENT_TYPES:
            return chosen, []
        if chosen in _OTHER_FORMATTERS:
            raise bad_payload(
                self.form,
                f"parameters.output_formatter={chosen!r}: expected json, jsonlines, sse or none.",
                "parameters.output_formatter",
            )
        unknown = [] if chosen is None else [Ignored(f"output_formatter={chosen[:32]}")]
        if not request.stream:
            return "json", unknown
        return ("sse" if self.config.tgi_compat else "jsonlines"), unknown

    def _streamed(self, request: LmiBody, formatter: str) -> bool:
        if self.form == "async":
            return bool(request.stream)  # the handler of this form knows no formatters
        if self.form == "0.25" and formatter == "json":
            return bool(request.stream)
        return formatter != "json"

    def _check_streamable(
        self, request: LmiBody, parameters: LmiParameters, formatter: str, streamed: bool
    ) -> None:
        if not streamed:
            return
        if isinstance(request.inputs, list):
            raise bad_payload(
                self.form, "inputs: a list of inputs can't be streamed; send one text.", "inputs"
            )
        for field in ("n", "best_of"):
            value = getattr(parameters, field)
            if value is not None and value > 1 and self.form != "async":
                raise bad_payload(
                    self.form,
                    f"parameters.{field}={value}: expected 1 when streaming.",
                    f"parameters.{field}",
                )
        # A details object of 0.25 has no place in its pieces.
        if self.form == "0.25" and formatter == "json" and parameters.details:
            raise bad_payload(
                self.form,
                "parameters.details: expected false when the answer is streamed as json.",
                "parameters.details",
            )

    def _adapter(self, request: LmiBody, headers: Mapping[str, str]) -> str | None:
        named = headers.get(ADAPTER_HEADER) or request.adapters
        if isinstance(named, list):
            if len(set(named)) > 1:
                raise bad_payload(self.form, "adapters: expected one name.", "adapters")
            return named[0] if named else None
        return named or None

    def _assemble(
        self,
        request: LmiBody,
        parameters: LmiParameters,
        formatter: str,
        streamed: bool,
        listed: bool,
        inputs: tuple[str, ...],
        headers: Mapping[str, str],
        left_out: tuple[Ignored, ...],
    ) -> ParsedRequest:
        tgi = self.config.tgi_compat and self.form == "0.36"
        details = tgi if parameters.details is None else parameters.details
        several = max(parameters.n or 1, parameters.best_of or 1) > 1
        logprobs = None
        if streamed or details or several:
            logprobs = parameters.top_n_tokens or 0
        sampling = build(
            self.form,
            parameters,
            temperature=_TEMPERATURE[self.form](parameters),
            logprobs=logprobs,
        )
        shape = Shape(
            prompts=inputs,
            listed=listed,
            choices=sampling.n,
            full_text=bool(parameters.return_full_text),
            details=details,
            prefill=bool(parameters.decoder_input_details),
            top_tokens=bool(parameters.top_n_tokens),
            seed=parameters.seed,
            words=_WORDS[self.form],
            logprob_key="logprob" if tgi or self.form == "async" else "log_prob",
            mark_special=tgi,
        )
        if self.form == "async":
            formatter = "jsonlines" if streamed else "json"
        return ParsedRequest(
            inputs=inputs,
            sampling=sampling,
            streamed=streamed,
            content_type=CONTENT_TYPES[formatter],
            reply=self._reply(shape, formatter, streamed),
            truncate_prompt_tokens=parameters.truncate,
            adapter=self._adapter(request, headers),
            ignored=left_out,
        )

    def _reply(self, shape: Shape, formatter: str, streamed: bool) -> Callable[[], Reply]:
        if not streamed:
            return partial(self._whole, shape)
        if self.form == "async":
            return partial(form_async.Lines, shape)
        if formatter == "none":
            return partial(form_036.PlainText, shape)
        if formatter == "sse":
            return partial(form_036.server_sent_events, shape)
        if self.form == "0.25":
            return partial(form_025.Outputs if formatter == "jsonlines" else form_025.Pieces, shape)
        return partial(form_036.JsonLines, shape)

    def _whole(self, shape: Shape) -> Reply:
        render: Callable[[Shape, Transcript, int], object] = form_036.render
        render_error, end = form_036.render_error, ""
        if self.form == "async":
            render, render_error, end = form_async.render, form_async.render_error, "\n"
        elif self.config.tgi_compat:
            render = form_036.render_tgi
        return WholeReply(
            inputs=len(shape.prompts) if shape.listed else None,
            choices=shape.choices,
            keep_tokens=shape.details or shape.choices > 1,
            render=partial(render, shape),
            render_error=render_error,
            end=end,
        )


_TEMPERATURE: dict[str, Callable[[LmiParameters], float]] = {
    "0.36": form_036.temperature,
    "0.25": form_025.temperature,
    "async": form_async.temperature,
}
_WORDS: dict[str, Mapping[Finish, str]] = {
    "0.36": form_036.WORDS,
    "0.25": form_025.WORDS,
    "async": form_async.WORDS,
}
