"""A request as a front hands it on, and the head of its answer: no transport, no dialect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Route(StrEnum):
    """What a client asks of a model that generates text."""

    INVOCATIONS = "invocations"  # the body tells its dialect
    CHAT = "chat"  # /v1/chat/completions
    COMPLETIONS = "completions"  # /v1/completions


@dataclass(frozen=True, slots=True)
class Call:
    """One request of one client.

    properties: HTTP headers (or DJL's properties), by lower-case name. content: the items in order,
    each with its key or None: query parameters first, then the body as `data`, or a form's fields.
    function: the name of the handler that is asked for.
    """

    content: tuple[tuple[str | None, bytes], ...]
    properties: Mapping[str, str] = field(default_factory=dict)
    route: Route = Route.INVOCATIONS
    function: str = "handle"

    @property
    def body(self) -> bytes:
        """The item `data`, else the first; empty where there is none."""
        for key, value in self.content:
            if key == "data":
                return value
        return self.content[0][1] if self.content else b""


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before an answer's first byte.

    reason: one line, HTTP's reason phrase. headers: their names in lower case; content-type is one.
    """

    status: int = 200
    reason: str = "OK"
    headers: tuple[tuple[str, str], ...] = ()
