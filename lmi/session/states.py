"""The states of a session, and what a health check is told of them.

    LOADING ──► READY ──► RESTARTING ──► READY …
       │                      │
       └──────► FAILED ◄──────┘           any state ──► DRAINING ──► CLOSED

LOADING and RESTARTING end with a token that came out of the whole path; nothing is ready before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    DRAINING = "draining"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Health:
    """state, and a line for people: the phase while loading, the reason when something is wrong."""

    state: State
    reason: str = ""

    @property
    def ready(self) -> bool:
        return self.state is State.READY
