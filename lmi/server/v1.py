"""OpenAI's routes: what they are called, and how a failure is told there."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from lmi.core import LmiError, Overloaded, Route, Unavailable
from lmi.schemas import UnknownModel, openai_error, openai_status
from lmi.server.config import ServerConfig
from lmi.server.errors import Failure, failure_headers
from lmi.session import Adapters, LoraNotEnabled, Served

_MAX_NAME = 200  # characters of an unknown model's name that are shown

_ROUTES = {
    "/v1/chat/completions": Route.CHAT,
    "/v1/completions": Route.COMPLETIONS,
}


def route_of(path: str) -> Route | None:
    """The route of a path; as in the reference, whatever follows a slash is let pass."""
    for start, route in _ROUTES.items():
        if path == start or path.startswith(start + "/"):
            return route
    return None


def v1_failure(error: LmiError, config: ServerConfig, route: Route | None = None) -> Failure:
    """How a failed request is answered, in OpenAI's form. route: None for the other pages."""
    status = openai_status(error)
    if isinstance(error, Overloaded):
        status = config.throttle_status
    elif isinstance(error, Unavailable):
        status = config.unavailable_status
    prompt = "messages" if route is Route.CHAT else "prompt"
    return Failure(status, openai_error(error, status, prompt), failure_headers(error))


def session_named(sessions: Mapping[str, Served], body: bytes) -> Served:
    """The session that a body's field `model` means: by its own name, or by an adapter's.

    A single one is taken whatever the field says: it knows its names itself. Raises UnknownModel.
    """
    if len(sessions) == 1:
        return next(iter(sessions.values()))
    name = _model(body)
    if name in sessions:
        return sessions[name]
    for session in sessions.values():
        if name in adapters_of(session):
            return session
    raise UnknownModel(
        "The field 'model' is needed: several models stand here."
        if not name
        else f"The model {name[:_MAX_NAME]!r} does not exist.",
        field="model",
    )


def adapters_of(session: Served) -> list[str]:
    """The names of a session's adapters; empty where it has none."""
    if not isinstance(session, Adapters):
        return []
    try:
        return list(session.adapters())
    except LoraNotEnabled:
        return []


def _model(body: bytes) -> str:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    found = fields.get("model") if isinstance(fields, dict) else None
    return found if isinstance(found, str) else ""


def model_list(sessions: Mapping[str, Served], created: int) -> dict[str, object]:
    """The page /v1/models: the models, and their adapters as models of their own.

    created: seconds since 1970.
    """
    return {
        "object": "list",
        "data": [
            card
            for name, session in sessions.items()
            for card in (
                _card(name, session, created, None),
                *[_card(each, session, created, name) for each in adapters_of(session)],
            )
        ],
    }


def model_card(sessions: Mapping[str, Served], created: int, name: str) -> dict[str, object]:
    """The page of one of them; raises UnknownModel."""
    for session_name, session in sessions.items():
        if name == session_name:
            return _card(name, session, created, None)
        if name in adapters_of(session):
            return _card(name, session, created, session_name)
    raise UnknownModel(f"The model {name[:_MAX_NAME]!r} does not exist.", field="model")


def _card(name: str, session: Served, created: int, parent: str | None) -> dict[str, object]:
    card: dict[str, object] = {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "lmi",
        "root": parent or name,
        "parent": parent,
    }
    length = getattr(session.info, "max_model_len", None)
    return card if length is None else {**card, "max_model_len": length}
