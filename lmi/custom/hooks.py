"""A user's functions beside a built-in engine: `handle`, an input and an output formatter.

They run in the front's process and on its event loop, for every request of the model, so they must
be quick: one that takes longer than a moment holds up all others, and the log says so. One that
raises fails its own request, with its traceback in the log.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from lmi.core import Call, LmiError, ModelError, RequestError
from lmi.custom.answers import Stream, interpret
from lmi.custom.api.request_io import RequestInput
from lmi.custom.formatted import FormattedReply
from lmi.custom.formatters import InputFormatter, Kind, OutputFormatter
from lmi.custom.inputs import make_input
from lmi.custom.loading import MODEL_FILE
from lmi.custom.request_inputs import body_of, from_call
from lmi.custom.responses import ResponseReply, as_completion
from lmi.custom.signatures import is_asynchronous, where
from lmi.custom.spec import Requirements
from lmi.schemas import Form, ParsedRequest

log = logging.getLogger("lmi.custom")

T = TypeVar("T")

_SLOW: Final = 0.05  # seconds on the event loop after which a hook is complained of
_REFUSED: Final = 300  # from this status on, the initialise call has failed


@dataclass(frozen=True, slots=True)
class HooksSpec:
    """Where a model's hooks are, and what they are told.

    folder: the model's. form: whose answers are given, which decides what formatters without
    annotations get. entry_point: the user's file. handler: the name of the function that is asked
    first. output_formatter: the name of an unmarked function (`option.output_formatter`).
    properties: every option as text. tokenizer: the folder of the model's, for formatters that want
    it; trust_remote_code: whether its own code may run. requirements: to be installed first, under
    the folder `cache` (None: the user's cache folder); this installation's packages go before them.
    """

    folder: Path
    form: Form = "0.36"
    entry_point: str = MODEL_FILE
    handler: str = "handle"
    output_formatter: str | None = None
    properties: Mapping[str, str | int] = field(default_factory=dict)
    tokenizer: Path | None = None
    trust_remote_code: bool = False
    requirements: Requirements | None = None
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call on its way to the parser. request: what the input formatter made, if there is one."""

    call: Call
    request: RequestInput | None = None


class Hooks:
    """The hooks of one model. Made by `load_hooks`, then used on the event loop only."""

    def __init__(
        self,
        spec: HooksSpec,
        handle: Callable[..., Any] | None,
        input_formatter: InputFormatter | None,
        output_formatter: OutputFormatter | None,
    ) -> None:
        self._spec = spec
        self._handle = handle
        self._input = input_formatter
        self._output = output_formatter
        self._own = {"model_dir": str(spec.folder)}
        self._initialised = False
        self._complained = False

    @property
    def handles(self) -> bool:
        """Whether there is a `handle` that is asked first."""
        return self._handle is not None

    @property
    def described(self) -> str:
        """For people: which functions there are, and where."""
        found = {
            "handle": self._handle,
            "input formatter": None if self._input is None else self._input.function,
            "output formatter": None if self._output is None else self._output.function,
        }
        return ", ".join(
            f"{name} {function.__name__} ({where(function)})"
            for name, function in found.items()
            if function is not None
        )

    async def initialise(self) -> None:
        """Give `handle` its first call, which has no content. Raises ModelError. Done once."""
        if self._handle is None or self._initialised:
            return
        self._initialised = True
        inputs = make_input({**self._spec.properties, **self._own}, (), self._spec.handler)
        try:
            if is_asynchronous(self._handle):
                answer = interpret(await self._called(inputs))
            else:  # it may load something
                answer = interpret(await asyncio.to_thread(self._handle, inputs))
        except (Exception, SystemExit) as error:  # whatever a user's code may raise
            log.exception("%s failed to initialise", where(self._handle))
            raise ModelError(
                f"handle ({where(self._handle)}), the initialise call: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(answer, Stream) and answer.head.status >= _REFUSED:
            raise ModelError(
                f"handle ({where(self._handle)}), the initialise call: it answered "
                f"{answer.head.status} {answer.head.reason}"
            )

    async def handle(self, call: Call) -> Any:
        """What `handle` says to a call: a result as of a Function's handler, None for nothing."""
        properties = {**self._own, "handler": self._spec.handler, **call.properties}
        try:
            return await self._called(make_input(properties, call.content, self._spec.handler))
        except (Exception, SystemExit) as error:  # whatever a user's code may raise
            raise self.failed("handler", error) from error

    async def _called(self, inputs: Any) -> Any:
        assert self._handle is not None
        result = self._timed(self._handle, inputs)
        return await result if inspect.isawaitable(result) else result

    def before(self, call: Call) -> Prepared:
        """A call as its input formatter wants it; raises RequestError where that fails."""
        request: RequestInput | None = None
        if self._input is not None:
            formatter = self._input
            inputs = make_input({**self._own, **call.properties}, call.content, "handle")
            try:
                made = self._timed(formatter.apply, inputs)
                body = body_of(made)
            except (Exception, SystemExit) as error:  # whatever a user's code may raise
                raise self.failed("formatter", error) from error
            request = made if isinstance(made, RequestInput) else None
            call = with_body(call, body)
        if self._kind is Kind.RESPONSE:
            call = with_body(call, as_completion(call.body))
        return Prepared(call, request)

    def after(self, prepared: Prepared, parsed: ParsedRequest) -> ParsedRequest:
        """A parsed request whose answer the output formatter writes."""
        formatter = self._formatter_for(prepared.request)
        if formatter is None:
            return parsed

        def format(value: Any) -> Any:
            try:
                return self._timed(formatter.function, *value)
            except (Exception, SystemExit) as error:  # whatever a user's code may raise
                raise self.failed("formatter", error) from error

        if formatter.kind is Kind.RESPONSE:
            streamed = parsed.streamed
            kind = "application/jsonlines" if streamed else "application/json"
            return replace(
                parsed,
                content_type=kind,
                reply=lambda: ResponseReply(
                    parsed.reply(), streamed, formatter.wants_mapping, format
                ),
            )
        request = prepared.request or from_call(prepared.call)
        # A formatter may show each token's probability, whether the request asks for it or not.
        sampling = replace(parsed.sampling, logprobs=parsed.sampling.logprobs or 0)
        return replace(
            parsed,
            sampling=sampling,
            content_type="application/jsonlines" if parsed.streamed else "application/json",
            reply=lambda: FormattedReply(
                request,
                formatter.kind,
                format,
                inputs=len(parsed.inputs),
                choices=sampling.n,
                streamed=parsed.streamed,
            ),
        )

    @property
    def _kind(self) -> Kind | None:
        return None if self._output is None else self._output.kind

    def _formatter_for(self, request: RequestInput | None) -> OutputFormatter | None:
        """The request's own, where its input formatter has set one."""
        own = None if request is None else request.output_formatter
        return OutputFormatter.of(own, self._spec.form) if callable(own) else self._output

    def _timed(self, function: Callable[..., T], *arguments: Any) -> T:
        began = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            took = time.perf_counter() - began
            if took > _SLOW and not self._complained:
                self._complained = True
                log.warning(
                    "a hook of %s took %.0f ms; hooks run between the tokens of all requests",
                    self._spec.entry_point,
                    1000 * took,
                )

    def failed(self, what: str, error: BaseException) -> LmiError:
        """What a request is told whose hook raised; the traceback is in the log."""
        if isinstance(error, LmiError):
            return error
        log.error("a custom %s failed", what, exc_info=error)
        text = " ".join(str(error).split()) or type(error).__name__
        return RequestError(f"Custom {what} failed: {text}")


def with_body(call: Call, body: bytes) -> Call:
    """A call with another body, in JSON; the parameters of its query stay."""
    if body is call.body:
        return call
    keys = [key for key, _ in call.content]
    at = keys.index("data") if "data" in keys else 0
    content = [item for index, item in enumerate(call.content) if index != at]
    return replace(
        call,
        content=(*content, ("data", body)),
        properties={**call.properties, "content-type": "application/json"},
    )
