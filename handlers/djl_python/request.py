"""A request of a rolling batch."""

from lmi.custom.api.request import (
    Request,
)

__all__ = [
    "Request",
]
