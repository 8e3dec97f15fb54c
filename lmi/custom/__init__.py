"""A user's code: loaded once, called as a Function in worker processes, or as hooks of an engine.

function = load_function(spec, progress)      an lmi.core.Function over worker processes
hooks = load_hooks(spec)                      formatters and a `handle` beside an engine
"""

from lmi.custom.hooks import Hooks, HooksSpec, load_hooks
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
