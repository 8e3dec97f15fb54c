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
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from lmi import djl
from lmi.config import ConfigErrors, Front, Resolution, resolve
from lmi.config.folder import descend
from lmi.launch.djl.staged import Staged
from lmi.launch.model import binder, loaded, make
from lmi.launch.preflight import preflight
from lmi.launch.progress import LineReporter
from lmi.launch.runnable import runnable
from lmi.session import Served

log = logging.getLogger("lmi.start")


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
            preflight(self._resolve({}))
        except ConfigErrors as errors:
            folder = str(descend(self.arguments.model_dir))
            certain = [problem for problem in errors.problems if problem.source != folder]
            if certain:
                raise ConfigErrors(certain) from errors

    async def initialise(self, properties: Mapping[str, str]) -> Served:
        """Load the model that the server's map means, and wait until it answers.

        Raises LmiError; whatever was started is closed then.
        """
        resolution = self._resolve(properties)
        preflight(resolution)
        spec = resolution.spec
        log.info("%s: engine %s: %s", spec.name, spec.engine, spec.reason)
        for warning in resolution.warnings:
            log.warning("%s", warning)
        staged = self._staged()
        fetched = None if staged is None else staged.fetched
        served = make(spec, binder(spec, self.environ, fetched))
        with closing(LineReporter()) as phases:
            served.start(phases.report)
            try:
                await loaded(served, spec)
            except BaseException:
                await asyncio.shield(served.close())
                raise
        return served

    def _resolve(self, properties: Mapping[str, str]) -> Resolution:
        staged = self._staged()
        if staged is not None:
            return staged.resolve(self.environ)
        return resolve(
            self.arguments.model_dir,
            self.environ,
            parameters=properties,
            installed=runnable(),
            front=Front.DJL,
        )

    def _staged(self) -> Staged | None:
        return Staged.read(self.arguments.model_dir)


def main(arguments: Sequence[str]) -> int:
    """What `djl_python_engine.py` does with its words; returns the exit code of the process."""
    parsed = djl.Arguments.parse(arguments)
    return djl.run(parsed, Worker(parsed, os.environ))
