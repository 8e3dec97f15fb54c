"""The process that the DJL model server starts: from its command line and its map to a model.

Java knows a worker's life in two parts. Until the marker line a failure is clean: the server ends
and shows the last lines. After it, in asynchronous mode, a failed initialise message leaves the
server hanging. So `check` finds before the marker whatever the folder and the environment show, and
only the rest, which needs the map or the model itself, is left to `initialise`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

from lmi import djl
from lmi.config import ConfigErrors, Front, Resolution, resolve
from lmi.config.folder import descend
from lmi.config.vllm_arguments import installed_release
from lmi.custom import Seat
from lmi.dist.parallel.meeting import launched_place
from lmi.engines.hardware import here
from lmi.launch.djl.staged import Staged
from lmi.launch.function import PROCESSOR
from lmi.launch.model import binder, facts, loaded, make
from lmi.launch.preflight import preflight
from lmi.launch.progress import LineReporter
from lmi.launch.runnable import runnable
from lmi.session import Served

log = logging.getLogger("lmi.start")

# Engines whose ranks are jobs of `lmi.dist`, which takes those that a launcher has started.
_OURS: Final = frozenset({"lmi-dist", "deepspeed"})


def resolve_worker(
    arguments: djl.Arguments, environ: Mapping[str, str], properties: Mapping[str, str]
) -> Resolution:
    """The configuration of a worker. properties: the server's map. Raises ConfigErrors."""
    staged = Staged.read(arguments.model_dir)
    if staged is not None:
        return staged.resolve(environ, runnable(), installed_release(), here())
    return resolve(
        arguments.model_dir,
        environ,
        parameters=properties,
        installed=runnable(),
        vllm=installed_release(),
        hardware=here(),
        front=Front.DJL,
    )


@dataclass(frozen=True, slots=True)
class Worker:
    """A `djl.Host`: what the loops of the wire ask of the launch."""

    arguments: djl.Arguments
    environ: Mapping[str, str]

    def check(self) -> None:
        """Raise ConfigError for what is wrong whatever the server will say.

        What is wrong with the folder as a whole, such as a model that nobody names, its map may
        still mend.
        """
        try:
            preflight(resolve_worker(self.arguments, self.environ, {}))
        except ConfigErrors as errors:
            folder = str(descend(self.arguments.model_dir))
            certain = [problem for problem in errors.problems if problem.source != folder]
            if certain:
                raise ConfigErrors(certain) from errors

    async def initialise(self, properties: Mapping[str, str]) -> Served:
        """Load the model that the server's map means, and wait until it answers.

        Raises LmiError; whatever was started is closed then.
        """
        resolution = resolve_worker(self.arguments, self.environ, properties)
        preflight(resolution)
        spec = resolution.spec
        log.info("%s: engine %s: %s", spec.name, spec.engine, spec.reason)
        for warning in resolution.warnings:
            log.warning("%s", warning)
        staged = Staged.read(self.arguments.model_dir)
        device = self.arguments.device_id
        seat = Seat(PROCESSOR if device is None else device)
        fetched = None if staged is None else staged.fetched
        served = make(spec, binder(spec, self.environ, fetched), self.environ, seat)
        with closing(LineReporter()) as phases:
            served.start(phases.report)
            try:
                await loaded(served, spec)
            except BaseException:
                await asyncio.shield(served.close())
                raise
        log.info("%s: %s", spec.name, facts(served))
        return served


@dataclass(frozen=True, slots=True)
class Follower:
    """The host of a rank other than the first of Java's own `mpirun`: it computes with that one."""

    arguments: djl.Arguments
    environ: Mapping[str, str]
    _watches: set[asyncio.Future[None]] = field(default_factory=set)

    def check(self) -> None:
        """Nothing: what can be wrong, the first rank finds, and it ends all of them."""

    async def initialise(self, properties: Mapping[str, str]) -> None:
        """Become a rank of the first one's job, in a process of its own, if its engine has ranks.

        Raises ConfigErrors.
        """
        place = launched_place(self.environ)
        spec = resolve_worker(self.arguments, self.environ, properties).spec
        if spec.engine not in _OURS or place is None:
            log.info("%s starts its ranks by itself: this one has nothing to do", spec.engine)
            return
        words = (sys.executable, "-m", "lmi.dist.worker", "--join", place.name)
        process = await asyncio.create_subprocess_exec(*words, env=dict(self.environ))
        self._watches.add(asyncio.ensure_future(_watch(process)))


async def _watch(process: asyncio.subprocess.Process) -> None:
    """End this rank with an engine that died: `mpirun` ends the others, Java starts all anew."""
    code = await process.wait()
    if code:  # else the first rank has closed it, and Java leaves all ranks alike
        log.error("this rank's engine ended with exit code %d", code)
        os._exit(1)  # the loop belongs to the front, which waits for Java


def main(words: Sequence[str]) -> int:
    """What `djl_python_engine.py` does with its words; returns the exit code of the process."""
    arguments = djl.Arguments.parse(words, os.environ)
    host = Worker if arguments.rank == 0 else Follower
    return djl.run(arguments, host(arguments, os.environ))
