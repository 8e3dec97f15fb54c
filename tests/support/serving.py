"""Start `lmi serve` as a user would: the real command, a real port, its log kept."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo"
READY_SECONDS = 120.0
STOP_SECONDS = 30.0

# What the tests' own environment must not bring into a served one.
OURS = ("OPTION_", "SERVING_", "HF_MODEL", "SAGEMAKER_", "TENSOR_PARALLEL", "ARGS_")


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Serving:
    """A started server: its process, its base URL and its log so far."""

    def __init__(
        self,
        arguments: list[str],
        environ: Mapping[str, str],
        log: Path,
        port: int | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        clean = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lmi.cli", "serve", *arguments, "--port", str(self.port)],
                env={**clean, "OMP_NUM_THREADS": "1", **environ},
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def ping(self) -> int:
        """The status of /ping, 0 while nobody listens."""
        try:
            return httpx.get(f"{self.url}/ping", timeout=5).status_code
        except httpx.TransportError:
            return 0

    def wait_for_ping(self, status: int, seconds: float = READY_SECONDS) -> float:
        """Seconds until /ping answers `status`; fails with the log when it doesn't."""
        started = time.monotonic()
        while self.ping() != status:
            waited = time.monotonic() - started
            if waited > seconds or self.process.poll() is not None:
                raise AssertionError(f"no ping {status} after {waited:.1f} s:\n{self.log}")
            time.sleep(0.02)
        return time.monotonic() - started

    def engine_processes(self) -> list[psutil.Process]:
        """The server's descendants: the engine's processes."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, number: int = signal.SIGTERM, seconds: float = STOP_SECONDS) -> int:
        """Send a signal and wait; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


@contextlib.contextmanager
def serving(
    log: Path, *arguments: str, environ: Mapping[str, str] | None = None, ready: bool = True
) -> Iterator[Serving]:
    """`lmi serve ARGUMENTS` on a free port; waits for a green ping unless told not to."""
    server = Serving(list(arguments), environ or {}, log)
    try:
        if ready:
            server.wait_for_ping(200)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait(STOP_SECONDS)
