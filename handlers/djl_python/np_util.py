"""Arrays as bytes."""

from lmi.custom.api.ndlist import (
    from_nd_list,
    to_nd_list,
)

__all__ = [
    "from_nd_list",
    "to_nd_list",
]
