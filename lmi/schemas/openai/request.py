"""What chat and completions have in common on the way in: names, framing, the ParsedRequest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from lmi.core import Route, Sampling
from lmi.schemas.adapter import adapter_of
from lmi.schemas.config import SchemaConfig
from lmi.schemas.errors import Voice, bad_payload
from lmi.schemas.openai.answer import EVENTS, LINES, Frame
from lmi.schemas.openai.errors import UnknownModel
from lmi.schemas.openai.fields import OpenAIFields
from lmi.schemas.serving import Serving
from lmi.schemas.validate import read

Body = TypeVar("Body", bound=OpenAIFields)

# Formatters of these dialects, as an option names them: the frame, None for a whole answer.
FORMATTERS: dict[str, Frame | None] = {
    "json_chat": None,
    "jsonlines_chat": LINES,
    "sse_chat": EVENTS,
}

_MAX_NAME = 200  # characters of an unknown model's name that are shown

GREATEST = 2**31 - 1  # tokens: as many as the context has room for


class Origin:
    """Where a request came in, and what that decides."""

    __slots__ = ("config", "form", "headers", "route", "serving", "voice")

    def __init__(
        self,
        headers: Mapping[str, str],
        config: SchemaConfig,
        route: Route,
        serving: Serving,
    ) -> None:
        self.headers = headers
        self.config = config
        self.route = route
        self.serving = serving
        self.form = config.form
        self.voice: Voice = config.form if route is Route.INVOCATIONS else "v1"

    def validate(self, kind: type[Body], body: bytes, needed: str) -> Body:
        """A body as its model, or BadPayload. needed: the field that it can't do without."""
        return read(kind, self.voice, body, self.headers.get("content-type", ""), needed)

    def frame(self, stream: bool) -> Frame | None:
        """How the answer is framed; None for a whole one."""
        if self.route is not Route.INVOCATIONS:
            return EVENTS if stream else None
        named = self.config.output_formatter
        if named in FORMATTERS:
            return FORMATTERS[named]
        if not stream:
            return None
        return LINES if self.form == "async" else EVENTS

    @property
    def end(self) -> str:
        """What follows a whole answer."""
        return "\n" if self.voice == "async" else ""

    def check_model(self, body: OpenAIFields) -> None:
        """Raise UnknownModel where OpenAI's route names neither the model nor an adapter."""
        named, serving = body.model, self.serving
        if self.route is Route.INVOCATIONS or named is None or named == serving.model:
            return
        if named not in serving.names and named not in serving.adapters:
            raise UnknownModel(f"The model {named[:_MAX_NAME]!r} does not exist.", field="model")

    def check_choices(self, sampling: Sampling, frame: Frame | None) -> None:
        """Raise BadPayload where a stream would have to wait until the best are known."""
        if frame is not None and sampling.best_of > sampling.n:
            raise bad_payload(self.voice, "best_of: expected n when streaming.", "best_of")

    def adapter(self, body: OpenAIFields) -> str | None:
        """The adapter that is asked for."""
        return adapter_of(self.voice, self.headers, self.serving, body.adapters, body.model)

    def model(self, body: OpenAIFields) -> str:
        """The model's name as the answer shows it."""
        return self.serving.model if body.model is None else body.model


def content_type(frame: Frame | None) -> str:
    """Of an answer in this frame."""
    if frame is None:
        return "application/json"
    return "text/event-stream" if frame is EVENTS else "application/jsonlines"
