"""/ping: whether this server should get traffic."""

from __future__ import annotations

from collections.abc import Mapping

from lmi.server.errors import pretty
from lmi.session import Served, State

# The reference's words for a model's status.
STATUS = {
    State.LOADING: "PENDING",
    State.READY: "Healthy",
    State.RESTARTING: "Unhealthy",
    State.DRAINING: "Unhealthy",
    State.FAILED: "FAILED",
    State.CLOSED: "FAILED",
}


def ping(sessions: Mapping[str, Served]) -> tuple[int, bytes]:
    """Status and body: 200 when every model is ready, 500 when one will never be, else 503."""
    found: dict[str, dict[str, str]] = {}
    status = 200
    for name, session in sessions.items():
        health = session.health()
        found[name] = {"status": STATUS[health.state]}
        if health.ready:
            continue
        found[name]["reason"] = f"{health.state}: {health.reason}"
        status = 500 if status == 500 or health.state is State.FAILED else 503
    return status, pretty(found)
