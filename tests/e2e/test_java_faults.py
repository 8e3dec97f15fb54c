"""What DJL's real Java classes and their clients see when something dies or can't be loaded."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.java_build import Unavailable, build
from tests.support.java_driver import JavaDriver, JavaError
from tests.support.java_folders import demo_folder, echo_folder, engine_cache, handler_folder

pytestmark = pytest.mark.slow

NOTICED_SECONDS = 1.0  # what is promised for a death
GONE_SECONDS = 10.0  # for a process to end, with an engine below it, on a busy machine

ROLLING = {"option.rolling_batch": "auto"}
ASYNC = {"option.async_mode": "true", "option.rolling_batch": "disable"}
LONG = {
    "inputs": "Return the name of",
    "parameters": {"max_new_tokens": 900, "ignore_eos_token": True},
    "stream": True,
}
SHORT = {"inputs": "Return the name of", "parameters": {"max_new_tokens": 4}}


@contextlib.contextmanager
def jvm(version: str, root: Path) -> Iterator[JavaDriver]:
    try:
        build(version)
    except Unavailable as missing:
        pytest.skip(str(missing))
    with JavaDriver(version, engine_cache(root, version), root) as driver:
        yield driver


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them end in time."""
    _, alive = psutil.wait_procs(processes, GONE_SECONDS)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def engine_of(java: JavaDriver) -> psutil.Process:
    """The process that holds the model: the worker's child that has most memory."""
    _, *below = java.workers()
    return max(below, key=lambda process: process.memory_info().rss)


@pytest.mark.parametrize("version", ["0.25.0", "0.34.0"])
def test_what_the_folder_shows_to_be_wrong_fails_the_load_before_the_marker(
    version: str, tmp_path: Path
) -> None:
    folder = echo_folder(tmp_path / "model", {"option.rolling_batch": "vlmm"})
    with jvm(version, tmp_path) as java:
        with pytest.raises(JavaError) as caught:
            java.load(folder)
        assert "exit code: 2" in str(caught.value)
        assert "vlmm" in java.log
        assert "Python engine started." not in java.log


@pytest.mark.parametrize("options", [ROLLING, ASYNC], ids=["rolling", "async"])
def test_a_model_that_cannot_be_loaded_does_not_hang_java(
    options: dict[str, str], tmp_path: Path
) -> None:
    folder = demo_folder(tmp_path / "model", options)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")
    with jvm("0.34.0", tmp_path) as java:
        started = time.monotonic()
        with pytest.raises(JavaError):
            java.load(folder, seconds=60)
        assert time.monotonic() - started < 60
        assert "safetensors" in java.log


@pytest.mark.parametrize("mode", [{}, {"option.async_mode": "true"}], ids=["plain", "async"])
def test_a_handler_that_cannot_be_imported_does_not_hang_java(
    mode: dict[str, str], tmp_path: Path
) -> None:
    folder = handler_folder(
        tmp_path / "model", "import no_such_module\n\n\ndef handle(inputs): ...\n", mode
    )
    with jvm("0.34.0", tmp_path) as java:
        with pytest.raises(JavaError):
            java.load(folder, seconds=60)
        assert "no_such_module" in java.log


@pytest.mark.parametrize(
    ("version", "options"),
    [("0.25.0", ROLLING), ("0.34.0", ROLLING), ("0.34.0", ASYNC)],
    ids=["0.25.0 rolling", "0.34.0 rolling", "0.34.0 async"],
)
def test_faults_of_a_running_model(version: str, options: dict[str, str], tmp_path: Path) -> None:
    folder = demo_folder(tmp_path / "model", options)
    with jvm(version, tmp_path) as java:
        java.load(folder)
        whole = java.predict(SHORT).body
        worker = java.workers()[0]

        # The engine is killed: each live request ends, Java's worker lives on, the next is served.
        pending = [java.submit(LONG) for _ in range(8)]
        for waiting in pending:
            waiting.begun.result(30)
        killed = time.monotonic()
        engine_of(java).send_signal(signal.SIGKILL)
        answers = [waiting.answer.result(30) for waiting in pending]
        noticed = time.monotonic() - killed
        assert [answer.trouble for answer in answers] == [None] * 8
        assert all("error" in answer.body for answer in answers), answers[0].body[-300:]
        assert noticed < NOTICED_SECONDS, noticed
        java.predict_until(SHORT, whole)
        assert java.workers()[0] == worker

        # Unloading leaves no process.
        everything = java.workers()
        java.close_model()
        assert gone(everything)


@pytest.mark.parametrize("options", [ROLLING, ASYNC], ids=["rolling", "async"])
def test_when_java_is_killed_no_process_is_left(options: dict[str, str], tmp_path: Path) -> None:
    folder = demo_folder(tmp_path / "model", options)
    with jvm("0.34.0", tmp_path) as java:
        java.load(folder)
        java.submit(LONG).begun.result(30)
        everything = java.workers()
        os.kill(java.process.pid, signal.SIGKILL)
        assert gone(everything)


def test_a_killed_worker_is_started_again_by_java_in_async_mode(tmp_path: Path) -> None:
    folder = echo_folder(tmp_path / "model", {"option.async_mode": "true"})
    with jvm("0.34.0", tmp_path) as java:
        java.load(folder)
        said = java.predict(SHORT).body
        worker = java.workers()[0]
        worker.send_signal(signal.SIGKILL)
        assert gone([worker])
        java.predict_until(SHORT, said)
