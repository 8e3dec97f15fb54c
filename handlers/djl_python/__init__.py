"""The names that users' scripts import from the DJL model server's Python package, over `lmi`.

Every module here is thin: what it exports lives in `lmi.custom`. Importing this package is cheap;
numpy, torch and transformers come with the modules that need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmi.custom.api import Input, Output, PairList

if TYPE_CHECKING:
    from lmi.custom.api.sessions import Session, SessionManager

__all__ = ["Input", "Output", "PairList", "Session", "SessionManager", "__version__"]

# The release whose interface this is: scripts compare with it.
__version__ = "0.36.0"


def __getattr__(name: str) -> Any:
    if name in ("Session", "SessionManager"):
        from lmi.custom.api import sessions

        return getattr(sessions, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
