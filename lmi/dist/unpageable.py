"""The error that sends a model to the fallback."""

from __future__ import annotations

from lmi.core import ModelError


class Unpageable(ModelError):
    """The model may well generate text, but not over LMI-Dist's paged attention. why: which model,
    and what stands in the way."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"{why}; runtime=generate may run it, on one rank, in padded batches")
