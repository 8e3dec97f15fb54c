"""What can run here: the engines whose libraries are installed, and handlers, which always can."""

from __future__ import annotations

from lmi.config.choose import FUNCTIONS
from lmi.engines import installed


def runnable() -> frozenset[str]:
    """The names that `resolve` may choose from; imports no library."""
    return installed() | {FUNCTIONS}
