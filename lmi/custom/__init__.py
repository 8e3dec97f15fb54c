"""A user's code: loaded once, called as a Function in worker processes, or as hooks of an engine.

function = load_function(spec, progress)      an lmi.core.Function over worker processes
"""

from lmi.custom.pool import load_function
from lmi.custom.requirements import find_requirements
from lmi.custom.spec import FunctionSpec, Progress, Requirements, Seat

__all__ = [
    "FunctionSpec",
    "Progress",
    "Requirements",
    "Seat",
    "find_requirements",
    "load_function",
]
