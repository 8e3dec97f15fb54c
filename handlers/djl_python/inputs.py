"""Requests."""

from lmi.custom.api.inputs import (
    Input,
)

__all__ = [
    "Input",
]
