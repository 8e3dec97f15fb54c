"""Answers."""

from lmi.custom.api.outputs import (
    Output,
)

__all__ = [
    "Output",
]
