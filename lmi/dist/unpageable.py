"""The error that sends a model to the fallback."""

from __future__ import annotations

from lmi.core import ModelError


class Unpageable(ModelError):
    """The model may well generate text, but not over LMI-Dist's paged attention."""
