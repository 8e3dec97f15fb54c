"""The worker as a process: how it starts, listens, ends, and never outlives its parent."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.djl_client import Disconnected, FakeJava
from tests.support.serving import free_port
from tests.unit.djl.test_steps import body

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 60.0
MODULE = "tests.support.djl_worker"


class Worker:
    """A started worker and what it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def wait_for(self, text: str) -> str:
        """The first line from now on that has the text."""
        assert self.process.stdout is not None
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            line = self.process.stdout.readline()
            if not line:
                break
            self.lines.append(line.rstrip("\n"))
            if text in line:
                return line
        raise AssertionError(f"no {text!r} in {self.lines}")

    def end(self) -> int:
        """Its exit code, and all that it said."""
        out, _ = self.process.communicate(timeout=SECONDS)
        self.lines += out.splitlines()
        return self.process.returncode


@contextmanager
def started(*words: str, environ: dict[str, str] | None = None) -> Iterator[Worker]:
    process = subprocess.Popen(
        [sys.executable, "-m", MODULE, *words],
        cwd=ROOT,
        env={**os.environ, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Worker(process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def unix(tmp_path: Path) -> list[str]:
    return ["--sock-type", "unix", "--sock-name", str(tmp_path / "s"), "--model-dir", str(tmp_path)]


def pid_file(tmp_path: Path) -> str:
    return (tmp_path / "s.pid").read_text()


async def test_a_worker_lives_from_the_marker_to_javas_leaving(tmp_path: Path) -> None:
    with started(*unix(tmp_path), "--log-level", "info", "--no-async-mode") as worker:
        worker.wait_for("Python engine started.")
        # Java reads it as a number: no line end.
        assert pid_file(tmp_path) == str(worker.process.pid)
        async with FakeJava.connected(tmp_path / "s") as java:
            await java.initialise({"rolling_batch": "auto"})
            one = java.rolling.add(body("abc", max_new_tokens=2))
            await java.rolling.finish(one)
            assert json.loads(one.text.splitlines()[-1])["generated_text"] == "abcabc"
            java.rolling.add(body("abc", max_new_tokens=8000))
            await java.rolling.step()
        assert worker.end() == 0
        assert "djl_python_engine started with args" in worker.lines[0]
        assert "Python process finished" in worker.lines[-1]
        assert not any("Traceback" in line or "ERROR" in line for line in worker.lines)
        assert os.listdir(tmp_path) == [], "the socket and its file are gone"


async def test_tcp_listens_on_loopback_at_the_port_of_its_rank(tmp_path: Path) -> None:
    port = free_port()
    words = ["--sock-type", "tcp", "--port", str(port - 1), "--model-dir", str(tmp_path)]
    words += ["--tensor-parallel-degree", "2"]
    ranks = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}
    with started(*words, environ=ranks) as worker:
        worker.wait_for("Python engine started.")
        async with FakeJava.connected(("127.0.0.1", port)) as java:
            await java.initialise({"async_mode": "true"})
            asked = await java.ask(body("abc", stream=False, max_new_tokens=1))
            assert json.loads(asked.text) == {"generated_text": "abc"}
        assert worker.end() == 0


def test_what_the_check_finds_ends_it_before_the_marker(tmp_path: Path) -> None:
    with started(*unix(tmp_path), environ={"WORKER_CHECK_FAILS": "a number"}) as worker:
        assert worker.end() == 2
        assert any("option.x='1' (from a test): a number" in line for line in worker.lines)
        assert not any("Python engine started." in line for line in worker.lines)


async def test_a_failed_load_in_async_mode_leaves_a_parent_that_is_no_java_alone(
    tmp_path: Path,
) -> None:
    environ = {"WORKER_LOAD_FAILS": "no weights"}
    with started(*unix(tmp_path), "--async-mode", environ=environ) as worker:
        worker.wait_for("Python engine started.")
        async with FakeJava.connected(tmp_path / "s") as java:
            with pytest.raises(Disconnected):
                await java.initialise()
        assert worker.end() == 1
        assert any("no weights" in line for line in worker.lines)
        assert any("no model server: left alone" in line for line in worker.lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_cleanly(tmp_path: Path, number: int) -> None:
    with started(*unix(tmp_path)) as worker:
        worker.wait_for("Python engine started.")
        async with FakeJava.connected(tmp_path / "s") as java:
            await java.initialise({"token_seconds": "0.01"})
            java.send({"handler": "handle"}, [("data", body("abc", max_new_tokens=8000))])
            await java.reply()
            worker.process.send_signal(number)
            with pytest.raises(Disconnected):
                await java.answer_to_the_end()
        assert worker.end() == 0


@contextmanager
def started_by_a_parent(tmp_path: Path) -> Iterator[tuple[Callable[[], None], Callable[[], bool]]]:
    """A worker with a process in between: what kills the parent, and what waits for the worker."""
    words = [sys.executable, "-m", MODULE, *unix(tmp_path)]
    script = (
        "import subprocess, time\n"
        f"print(subprocess.Popen({words!r}).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    worker = Worker(parent)
    worker.wait_for("Python engine started.")
    watched = os.pidfd_open(int(worker.lines[0]))

    def kill() -> None:
        parent.kill()
        parent.wait()

    def ended() -> bool:
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        return bool(poll.poll(SECONDS * 1000))

    try:
        yield kill, ended
    finally:
        kill()
        os.close(watched)
        assert parent.stdout is not None
        parent.stdout.close()


async def test_a_worker_whose_parent_is_killed_ends(tmp_path: Path) -> None:
    with started_by_a_parent(tmp_path) as (kill, ended):
        async with FakeJava.connected(tmp_path / "s") as java:
            await java.initialise()
            kill()
            assert await asyncio.to_thread(ended), "the worker is an orphan"


def test_a_worker_that_java_never_connects_to_ends_with_its_parent(tmp_path: Path) -> None:
    with started_by_a_parent(tmp_path) as (kill, ended):
        kill()
        assert ended(), "the worker is an orphan"
