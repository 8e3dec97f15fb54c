"""Starts servers and generators as processes of their own, and stops them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

START_SECONDS: Final = 300.0  # vLLM imports for half a minute where others are at work
STOP_SECONDS: Final = 40.0  # a drain of 25 s, and some
PING_SECONDS: Final = 0.1
# As in every measurement here: a model's thread each, so that two engines side by side, or an
# engine and a generator, do not fight for the cores.
ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class DidNotStart(RuntimeError):
    """A server ended or was not ready in time; the text ends with its last words."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is ready. Its process leads a group of its own."""

    pid: int
    port: int
    command: tuple[str, ...]

    def pause(self) -> None:
        """Stop it and its children, so that waiting threads disturb nobody else's turn."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def lmi_serve(folder: Path, port: int) -> list[str]:
    """The command that a user would type."""
    return [sys.executable, "-m", "lmi.cli", "serve", str(folder), "--port", str(port)]


@contextmanager
def served(
    command: Sequence[str], port: int, variables: Mapping[str, str] = ONE_THREAD
) -> Iterator[Served]:
    """Run a server until the block ends. Raises DidNotStart."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            start_new_session=True,
        )
        try:
            _wait_until_ready(process, port, log)
            yield Served(process.pid, port, tuple(command))
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            said = log.read().decode(errors="replace")[-2000:]
            raise DidNotStart(f"{process.args!r} (exit code {process.poll()}): {said}")
        time.sleep(PING_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGCONT)  # it may be paused
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@cache
def real_time() -> tuple[str, ...]:
    """The prefix that runs a command before all others, where that is permitted."""
    chrt = shutil.which("chrt")
    prefix = (chrt or "chrt", "-f", "10")
    if chrt is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        return ()
    return prefix


def load(served_by: Served, *options: str) -> dict[str, Any]:
    """Run the load generator against a server; its figures. A failed run raises."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        command = [*real_time(), sys.executable, "-m", "benchmarks.load"]
        command += ["--port", str(served_by.port), "--watch", str(served_by.pid)]
        command += ["--json", str(out), *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if not out.exists():
            raise RuntimeError(f"{command}: {done.stderr[-2000:]}")
        figures: dict[str, Any] = json.loads(out.read_text())
        return figures
