"""What is known of a Function before any of its code runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Reports (phase, done, total) from any thread; a total of 0 means that the end is not known.
Progress = Callable[[str, int, int], None]


def silent(phase: str, done: int, total: int) -> None:
    """Progress that nobody wants to hear of."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """A model's `requirements.txt`, to be installed before its code is loaded.

    find_links: a folder of packages that pip may take them from. index: whether pip may ask a
    package index; dependencies: whether it installs what the named packages need in turn.
    """

    file: Path
    find_links: Path | None = None
    index: bool = True
    dependencies: bool = True


@dataclass(frozen=True, slots=True)
class Seat:
    """A place where a worker runs. device_id: its GPU's index, -1 for none. environ: on top."""

    device_id: int = -1
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """A user's or a stock handler and how its workers are run. Times are in seconds.

    name: the model's. folder: the model's; its workers' current folder, and on their import path.
    entry_point: an absolute path, `x.py` in the folder, or a module's name; None for the folder's
    `model.py` where there is one. fallback: a module that answers where the entry point's has no
    handler, or where there is no entry point. handler: the function's name.
    properties: what the handler gets first, in the initialise call: every option as text, and
    tensor_parallel_degree, pipeline_parallel_degree and cluster_size as int where they are given;
    model_dir and device_id are added.

    python: the workers' interpreter; it needs this package and msgspec. workers: at the start and
    at least; max_workers: while a queue is long; a worker above the least that has been idle for
    max_idle ends. seats: taken by the workers in turn. batch_size: calls that an `handle` gets at
    once at most; the first of them waits no longer than max_batch_delay. concurrency: calls that
    one worker runs at once where the handler is `async`. predict_timeout: a call that brings
    nothing for so long is ended, and its worker with it unless it obeys. restart_limit: loads that
    may fail in a row before a worker is given up. A worker that ends is replaced at once; where the
    next one ends, too, after restart_backoff, then after twice as long, up to restart_backoff_max.

    requirements: to be installed first, under the folder `cache` (None: the user's cache folder).
    """

    name: str
    folder: Path
    entry_point: str | None = None
    fallback: str | None = None
    handler: str = "handle"
    properties: Mapping[str, str | int] = field(default_factory=dict)
    python: str = sys.executable
    environ: Mapping[str, str] = field(default_factory=dict)
    workers: int = 1
    max_workers: int = 1
    max_idle: float = 60.0
    seats: tuple[Seat, ...] = (Seat(),)
    batch_size: int = 1
    max_batch_delay: float = 0.1
    concurrency: int = 256
    predict_timeout: float = 120.0
    loading_timeout: float = 240.0
    restart_limit: int = 3
    restart_backoff: float = 0.5
    restart_backoff_max: float = 30.0
    requirements: Requirements | None = None
    cache: Path | None = None
