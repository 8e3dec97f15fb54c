"""A user's code: loaded once, called as a Function in worker processes, or as hooks of an engine.

    function = load_function(spec, progress)      an lmi.core.Function over worker processes
    hooks = load_hooks(spec)                      formatters and a `handle` beside an engine

Importing this package imports nothing of it: a worker process needs a small part, and starts in a
tenth of the time without the dialects' models.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lmi.custom.hook_loading import load_hooks
    from lmi.custom.hooks import Hooks, HooksSpec
    from lmi.custom.load import load_function
    from lmi.custom.requirements import find_requirements
    from lmi.custom.spec import FunctionSpec, Progress, Requirements, Seat

__all__ = [
    "FunctionSpec",
    "Hooks",
    "HooksSpec",
    "Progress",
    "Requirements",
    "Seat",
    "find_requirements",
    "load_function",
    "load_hooks",
]

_HOMES: Final = {
    "FunctionSpec": "spec",
    "Hooks": "hooks",
    "HooksSpec": "hooks",
    "Progress": "spec",
    "Requirements": "spec",
    "Seat": "spec",
    "find_requirements": "requirements",
    "load_function": "load",
    "load_hooks": "hook_loading",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
