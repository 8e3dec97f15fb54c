"""A subject's side of the pipe: loads an engine, says that it is ready, and runs one job per line.

Standard library only. Everything that a library prints goes to standard error, which is the log.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.offline.loop import Job, Stepper, drive

PR_SET_PDEATHSIG: Final = 1  # of prctl(2)


@dataclass(frozen=True, slots=True)
class Setting:
    """What every subject is told.

    model: a folder with config.json and safetensors. dtype: float32 or bfloat16. max_batch:
    requests that may run at once. max_tokens: of one request, prompt and answer. options: what
    distinguishes two subjects that are the same engine.
    """

    model: str
    dtype: str
    threads: int
    max_batch: int
    max_tokens: int
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ready:
    """A loaded engine. facts: what a reader should know of it (versions, chosen kernels)."""

    stepper: Stepper
    facts: dict[str, str]


def serve(load: Callable[[Setting], Ready]) -> None:
    """Load with the setting in the first argument (JSON), then answer jobs until the pipe ends."""
    # One that is stopped would outlive whoever measures, since it never reads that its pipe ended.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    ready = load(Setting(**json.loads(sys.argv[1])))
    gc.collect()
    gc.freeze()
    print(json.dumps(ready.facts), file=pipe, flush=True)
    for line in sys.stdin:
        done = drive(ready.stepper, Job(**json.loads(line)))
        print(json.dumps(asdict(done)), file=pipe, flush=True)
    pipe.close()
    # Engines with threads of their own would wait for work that never comes.
    os._exit(0)
