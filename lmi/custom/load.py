"""From a FunctionSpec to a Function whose workers are up."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from lmi.custom.pool import Pool
from lmi.custom.requirements import default_cache, install
from lmi.custom.spec import FunctionSpec, Progress, silent


def load_function(spec: FunctionSpec, progress: Progress = silent) -> Pool:
    """Install what the code requires, start the workers, and wait until all have loaded it.

    Blocks; for a thread that may. Raises ConfigError, ModelError or OutOfMemory as the first worker
    that failed said, EngineDead where one ended or took longer than `loading_timeout`; no process
    is left then.
    """
    site: Path | None = None
    if spec.requirements is not None:
        cache = spec.cache or default_cache(os.environ)
        site = install(spec.requirements, spec.python, cache, progress)
    with ExitStack() as on_failure:
        pool = Pool(spec, site)
        on_failure.callback(pool.close)
        pool.await_workers(progress)
        on_failure.pop_all()
    return pool
