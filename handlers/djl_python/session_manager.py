"""State that a client's requests share."""

from lmi.custom.api.sessions import (
    Session,
    SessionManager,
)

__all__ = [
    "Session",
    "SessionManager",
]
