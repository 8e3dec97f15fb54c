"""The worker's process as the DJL model server starts it: its words, its marker, its socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HANDLERS = Path(__file__).resolve().parent.parent.parent / "handlers"
ENGINE = "djl_python_engine.py"
MARKER = "Python engine started."
SECONDS = 60.0  # for anything that must come


@dataclass
class StartedWorker:
    """A process whose marker has been read. lines: what it has said so far."""

    process: asyncio.subprocess.Process
    socket: Path
    lines: list[str]
    _reader: asyncio.Task[None] | None = field(default=None, repr=False)

    async def end(self) -> int:
        """Wait until it has ended; its exit code."""
        async with asyncio.timeout(SECONDS):
            return await self.process.wait()


def words(
    socket: Path, model: Path, *, asynchronous: bool | None = False, device: int = -1
) -> list[str]:
    """The command line of 0.36; of 0.25 where `asynchronous` is None."""
    found = ["--sock-type", "unix", "--sock-name", str(socket), "--model-dir", str(model)]
    found += ["--entry-point", "djl_python.huggingface", "--device-id", str(device)]
    if asynchronous is None:
        return found
    found += ["--cluster-size", "1", "--recommended-entry-point", "", "--log-level", "info"]
    return [*found, "--async-mode" if asynchronous else "--no-async-mode"]


@contextlib.asynccontextmanager
async def started(
    model: Path,
    place: Path,
    *,
    engines: Path = HANDLERS,
    asynchronous: bool | None = False,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[StartedWorker]:
    """A worker that has said its marker, killed at the end. place: a short folder for its socket.

    Raises EOFError with what it has said where it ends before its marker.
    """
    socket = place / "djl_sock.19000"
    command = [sys.executable, str(engines / ENGINE)]
    command += words(socket, model, asynchronous=asynchronous)
    async with _running(command, socket, model, engines, environ or {}, ranks=1) as worker:
        yield worker


@contextlib.asynccontextmanager
async def started_by_mpirun(
    model: Path, place: Path, mpirun: Sequence[str], ranks: int = 2
) -> AsyncIterator[StartedWorker]:
    """Workers that have all said their markers; the socket of each has its rank at the end."""
    socket = place / "djl_sock.19000"
    command = ["mpirun", *mpirun, sys.executable, str(HANDLERS / ENGINE)]
    command += ["--model-dir", str(model), "--entry-point", "djl_python.huggingface"]
    command += ["--sock-type", "unix", "--sock-name", str(socket)]
    command += ["--tensor-parallel-degree", str(ranks), "--pipeline-parallel-degree", "1"]
    command += ["--recommended-entry-point", "", "--log-level", "info", "--no-async-mode"]
    async with _running(command, socket, model, HANDLERS, {}, ranks=ranks) as worker:
        yield worker


@contextlib.asynccontextmanager
async def _running(
    command: Sequence[str],
    socket: Path,
    model: Path,
    engines: Path,
    environ: Mapping[str, str],
    *,
    ranks: int,
) -> AsyncIterator[StartedWorker]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=model,
        env={**os.environ, "PYTHONPATH": f"{engines}:{model}", **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    worker = StartedWorker(process, socket, [])
    try:
        async with asyncio.timeout(SECONDS):
            for _ in range(ranks):
                await _marker(worker)
        worker._reader = asyncio.create_task(_rest(worker))
        yield worker
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if worker._reader is not None:
            await worker._reader


async def _marker(worker: StartedWorker) -> None:
    assert worker.process.stdout is not None
    async for line in worker.process.stdout:
        worker.lines.append(line.decode().rstrip())
        if MARKER in worker.lines[-1]:
            return
    raise EOFError("\n".join(worker.lines))


async def _rest(worker: StartedWorker) -> None:
    assert worker.process.stdout is not None
    async for line in worker.process.stdout:
        worker.lines.append(line.decode().rstrip())
