"""A call becomes a parsed request and the head of its answer: through the user's formatters where
there are some, with the model's chat template, and with a line in the log for what is ignored."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from lmi.core import Call, Head, Route
from lmi.custom.hooks import Hooks, Prepared
from lmi.schemas import ParsedRequest, Serving, parse
from lmi.session.adapters import AdapterDesk
from lmi.session.config import SessionConfig
from lmi.text import ChatTemplate

log = logging.getLogger("lmi.session")

_MAX_NAMES = 1000  # ignored parameters that are remembered as said; clients invent more


class Reader:
    """Of one model. chat, hooks: of what is loaded now."""

    def __init__(self, config: SessionConfig, adapters: AdapterDesk) -> None:
        self._config = config
        self._adapters = adapters
        self._said: set[str] = set()
        self.chat: ChatTemplate | None = None
        self.hooks: Hooks | None = None

    def read(self, call: Call) -> tuple[ParsedRequest, Head]:
        """Raises RequestError, mostly BadPayload."""
        hooks = self.hooks
        prepared = Prepared(call) if hooks is None else hooks.before(call)
        call = prepared.call
        parsed = self.parse(call.body, call.properties, call.route, _adapter_named(call))
        if hooks is not None:
            parsed = hooks.after(prepared, parsed)
        headers = [("content-type", parsed.content_type)]
        if parsed.ignored:
            self._say_ignored(parsed)
            headers.append(("x-lmi-ignored-parameters", ", ".join(map(str, parsed.ignored))))
        return parsed, Head(headers=tuple(headers))

    def parse(
        self, body: bytes, headers: Mapping[str, str], route: Route, adapter: str | None
    ) -> ParsedRequest:
        """See `Session.parse`."""
        config = self._config
        serving = Serving(
            config.model, config.served_names, self.chat, self._adapters.known, adapter
        )
        return parse(body, headers, config.schema, route, serving)

    def _say_ignored(self, parsed: ParsedRequest) -> None:
        """Each ignored name once in the log; every reply's header has its own."""
        for each in parsed.ignored:
            if each.name not in self._said and len(self._said) < _MAX_NAMES:
                self._said.add(each.name)
                log.warning("%s: ignored request parameter %s", self._config.model, each)


def _adapter_named(call: Call) -> str | None:
    """The adapter that the query names."""
    for key, value in call.content:
        if key == "adapter":
            return value.decode(errors="replace")
    return None
