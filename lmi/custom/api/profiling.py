"""Counting objects around a function: where the memory of a script goes."""

from __future__ import annotations

import functools
import gc
import logging
import os
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

log = logging.getLogger(__name__)

_SWITCH: Final = "DJL_PYTHON_PROFILING"
_TOP: Final = "DJL_PYTHON_PROFILING_TOP_OBJ"
_DEFAULT_TOP: Final = 50  # kinds of objects


def profile_objects(func: Callable[..., Any]) -> Callable[..., Any]:
    """With the variable DJL_PYTHON_PROFILING=true, log the most numerous kinds of objects after
    each call; without it, the function as it is."""
    if os.environ.get(_SWITCH, "").lower() != "true":
        return func
    top = int(os.environ.get(_TOP, _DEFAULT_TOP))

    @functools.wraps(func)
    def counted(*args: Any, **kwargs: Any) -> Any:
        try:
            return func(*args, **kwargs)
        finally:
            kinds = Counter(type(each).__name__ for each in gc.get_objects())
            shown = ", ".join(f"{name} {count}" for name, count in kinds.most_common(top))
            log.info("objects after %s: %s", func.__name__, shown)

    return counted
