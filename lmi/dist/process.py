"""A core, LMI-Dist's or another library's, in a process of its own: an `Engine` for servers.

The caller's process keeps the front half (tokenizer, text, stop strings); the worker has the model.
They exchange one frame per step. A worker that dies is noticed at once, whatever it was doing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from queue import Empty
from types import MappingProxyType
from typing import Any, Final, Self

from lmi.core import (
    Delta,
    EngineDead,
    EngineInfo,
    EngineStats,
    GenerationRequest,
)
from lmi.dist.config import DistConfig
from lmi.dist.engine import engine_stats, silent
from lmi.dist.foreign import ForeignConfig
from lmi.dist.front import Front
from lmi.dist.job import Job
from lmi.dist.messages import CoreStats
from lmi.dist.parallel.degrees import check
from lmi.dist.parallel.launch import Launcher, launcher_for
from lmi.dist.wire import (
    Answered,
    Cancel,
    Failed,
    Progress,
    Ready,
    Start,
    Stepped,
    Submit,
)
from lmi.text import Tokenizer

CORE: Final = "lmi.dist.any_core:make_core"
RANK: Final = "lmi.dist.parallel.rank:load"
# A model of hundreds of gigabytes on a slow disk; progress is reported meanwhile.
LOAD_SECONDS: Final = 3600.0


class ProcessEngine:
    """An `lmi.core.Engine` over a worker process. Made by `load` or `load_foreign`.

    With best_of above n, a request's deltas come all at its end.
    """

    def __init__(self, job: Job, info: EngineInfo, front: Front) -> None:
        self._job = job
        self._info = info
        self._front = front
        self._stats = CoreStats()
        self._dead: EngineDead | None = None

    @classmethod
    def load(
        cls,
        config: DistConfig,
        progress: Callable[[str, int, int], None] = silent,
        *,
        core: str | None = None,
        arguments: Mapping[str, Any] = MappingProxyType({}),
        name: str | None = None,
        mpirun: bool = False,
        seconds: float = LOAD_SECONDS,
    ) -> Self:
        """Start a worker for each rank and wait until they have loaded the model.

        progress is called by this thread with a phase, what is done and the total. core:
        `module:name` of what makes the core in a worker (see `lmi.dist.wire.Start`), None for
        LMI-Dist's own; arguments: what else that is told, by name. name: the library's in errors,
        None for LMI-Dist. mpirun: let Open MPI start the ranks; where this process is itself one of
        as many that a launcher has started, those are the ranks (`lmi.dist.parallel.meeting`).
        Raises ConfigError or ModelError as the core did, EngineDead if a worker ends or is not
        ready after `seconds`; no process is left behind then.
        """
        ranks = config.tensor_parallel
        if core is None:
            core = CORE if ranks == 1 else RANK
            check(config)
        launcher = launcher_for(ranks, mpirun, os.environ)
        start = Start(config, core, arguments=dict(arguments))
        return cls._start(start, ranks, launcher, progress, seconds, name=name or config.name)

    @classmethod
    def load_foreign(
        cls,
        config: ForeignConfig,
        core: str,
        progress: Callable[[str, int, int], None] = silent,
        *,
        honours: frozenset[str] = frozenset(),
        seconds: float = LOAD_SECONDS,
    ) -> Self:
        """Start one worker with another library's core, which starts ranks of its own if any.

        core: `module:name` of what makes it of the config and a progress function. honours: the
        fields of `lmi.core.OPTIONAL` that it takes. Raises as `load` does.
        """
        launcher = launcher_for(1, False, os.environ)
        start = Start(config, core)
        return cls._start(start, 1, launcher, progress, seconds, honours, name=config.name)

    @classmethod
    def _start(
        cls,
        start: Start,
        ranks: int,
        launcher: Launcher,
        progress: Callable[[str, int, int], None],
        seconds: float,
        honours: frozenset[str] = frozenset(),
        *,
        name: str,
    ) -> Self:
        config = start.config
        with ExitStack() as on_failure:
            job = Job(start, ranks, launcher, name)
            on_failure.callback(job.close, grace=0.0)
            tokenizer = Tokenizer.load(config.tokenizer, trust_remote_code=config.trust_remote_code)
            info = _await_ready(job, progress, seconds)
            on_failure.pop_all()
        return cls(job, info, Front(tokenizer, info, honours))

    @property
    def info(self) -> EngineInfo:
        """Fixed facts of the loaded model."""
        return self._info

    @property
    def pid(self) -> int | None:
        """Rank 0's process id."""
        return self._job.pid

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of all ranks, in order."""
        return self._job.pids

    def last_step_age(self) -> float:
        """Seconds since the worker last said something. Idle workers are silent too."""
        return time.monotonic() - self._job.last_heard

    def submit(self, request: GenerationRequest, /) -> None:
        """Accept a request, or raise RequestError. Never waits for the worker."""
        self._job.send(Submit(self._front.open(request)))

    def cancel(self, request_id: int, /) -> None:
        """Stop a request within one step of the worker; its finish still comes."""
        if request_id in self._front:
            self._job.send(Cancel(request_id))

    def poll(self, timeout: float, /) -> Sequence[Delta]:
        """All deltas that are here; waits up to `timeout` seconds for the first.

        Raises EngineDead when the worker is gone, after all that it said before.
        """
        deltas = self._take(0.0)
        if deltas or timeout <= 0:
            return deltas
        until = time.monotonic() + timeout
        while not deltas and (left := until - time.monotonic()) > 0:
            deltas = self._take(left)
        return deltas

    def on_ready(self, wake: Callable[[], None], /) -> None:
        """Register `wake`: called by another thread, once per message of the worker."""
        self._job.wake = wake
        if self._job.has_news or self._dead is not None:
            wake()

    def stats(self) -> EngineStats:
        """The load after the worker's last step."""
        return engine_stats(self._stats)

    def close(self) -> None:
        """End the worker: it is asked to, and killed if it does not obey. Idempotent."""
        self._dead = self._dead or EngineDead(f"{self._job.name} is closed")
        self._job.close()

    def _take(self, timeout: float) -> list[Delta]:
        """The deltas of all messages that are here; waits for the first only."""
        if self._dead is not None:
            raise self._dead
        deltas: list[Delta] = []
        stopped: list[tuple[int, int]] = []
        try:
            while True:
                message = self._job.next_message(timeout)
                if message is None:
                    self._dead = EngineDead(self._job.epitaph())
                    break
                timeout = 0.0
                if isinstance(message, Stepped):
                    self._stats = message.stats
                    deltas += self._front.translate(message.events, stopped)
                elif isinstance(message, Answered):
                    self._answered(message)
        except Empty:
            pass
        for request_id, choice in stopped:
            self._job.send(Cancel(request_id, choice))
        if self._dead is not None:
            if not deltas:
                raise self._dead
            self._job.wake()  # the next poll raises, and the worker will not wake anybody again
        return deltas

    def _answered(self, answer: Answered) -> None:
        """What became of an adapter message: for an engine that sends them."""


def _await_ready(job: Job, progress: Callable[[str, int, int], None], seconds: float) -> EngineInfo:
    until = time.monotonic() + seconds
    while True:
        try:
            message = job.next_message(max(0.0, until - time.monotonic()))
        except Empty:
            raise EngineDead(f"{job.name} has not loaded its model within {seconds:g} s") from None
        if message is None:
            raise EngineDead(f"{job.epitaph()} while it loaded the model")
        match message:
            case Progress(phase, done, total):
                progress(phase, done, total)
            case Ready(info):
                return info
            case Failed() as failed:
                raise failed.exception()
            case Stepped() | Answered():
                raise EngineDead(f"{job.name}'s worker stepped before it was ready")
