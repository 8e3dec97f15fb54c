"""A user's code: loaded once, called as a Function in worker processes, or as hooks of an engine.

function = load_function(spec, progress)      an lmi.core.Function over worker processes
hooks = load_hooks(...)                       formatters and a `handle` beside an engine
"""

from lmi.custom.spec import FunctionSpec, Progress, Requirements, Seat

__all__ = ["FunctionSpec", "Progress", "Requirements", "Seat"]
