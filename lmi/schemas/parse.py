"""Which dialect a body is in: OpenAI's routes say it, elsewhere its fields do."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from lmi.core import Route
from lmi.schemas.config import Form, SchemaConfig
from lmi.schemas.generate import parse_generate
from lmi.schemas.openai import parse_chat, parse_completions
from lmi.schemas.parsed import ParsedRequest
from lmi.schemas.serving import Serving

NOTHING = Serving()

# The field that decides, in the order in which the reference looks: its rolling batch, which has no
# completions, asks for messages first; its asynchronous handler for a prompt.
_ORDER: dict[Form, tuple[str, ...]] = {
    "0.36": ("messages", "inputs", "prompt"),
    "0.25": ("messages", "inputs", "prompt"),
    "async": ("prompt", "inputs", "messages"),
}


def parse(
    body: bytes,
    headers: Mapping[str, str],
    config: SchemaConfig,
    route: Route = Route.INVOCATIONS,
    serving: Serving = NOTHING,
) -> ParsedRequest:
    """Read a request body.

    headers: with lower-case names. Raises BadPayload, which names the field that is at fault, and
    on OpenAI's routes UnknownModel.
    """
    match _dialect(body, config.form) if route is Route.INVOCATIONS else route:
        case Route.CHAT:
            return parse_chat(body, headers, config, route, serving)
        case Route.COMPLETIONS:
            return parse_completions(body, headers, config, route, serving)
        case _:
            return parse_generate(body, headers, config, serving)


def _dialect(body: bytes, form: Form) -> Route:
    """The dialect of a body that came to /invocations."""
    # A name that stands nowhere in the body can't be a field of it: no need to read it for that.
    if b'"messages"' not in body and b'"prompt"' not in body:
        return Route.INVOCATIONS
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Route.INVOCATIONS
    found = [name for name in _ORDER[form] if isinstance(fields, dict) and name in fields]
    routes = {"messages": Route.CHAT, "prompt": Route.COMPLETIONS}
    return routes.get(found[0], Route.INVOCATIONS) if found else Route.INVOCATIONS
