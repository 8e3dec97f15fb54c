"""What the caller of LMI-Dist's process engine sees when the worker comes to harm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from lmi.core import Delta, EngineDead, GenerationRequest, Sampling
from lmi.dist import DistConfig, ProcessEngine
from tests.support.trained_tokenizers import byte_level

pytestmark = pytest.mark.slow

CORE = "tests.support.scripted_core:ScriptedCore"
ENDLESS = Sampling(max_new_tokens=4000, ignore_eos=True)
PATIENCE_SECONDS = 30.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def start(folder: Path, **script: Any) -> ProcessEngine:
    (folder / "script.json").write_text(json.dumps({"step_seconds": 0.002, **script}))
    return ProcessEngine.load(DistConfig(folder), core=CORE)


def poll_to_the_end(engine: ProcessEngine) -> tuple[list[Delta], EngineDead]:
    """All deltas until the engine says that it is dead."""
    deltas: list[Delta] = []
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        try:
            deltas += engine.poll(1.0)
        except EngineDead as error:
            return deltas, error
    raise AssertionError("the engine never noticed")


def running(engine: ProcessEngine, requests: int = 4) -> psutil.Process:
    """Let some requests run; returns the worker."""
    for request_id in range(1, requests + 1):
        engine.submit(GenerationRequest(request_id, (50 + request_id,), ENDLESS))
    assert engine.poll(PATIENCE_SECONDS)
    return psutil.Process(engine.pid)


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker_is_noticed_at_once(folder: Path, kill: signal.Signals) -> None:
    with closing(start(folder)) as engine:
        worker = running(engine)
        woken = threading.Event()
        engine.on_ready(woken.set)
        worker.send_signal(kill)
        begin = time.monotonic()
        _, error = poll_to_the_end(engine)
        assert time.monotonic() - begin < 1.0
        assert str(error).endswith(f"(process {worker.pid}) was killed by {kill.name}")
        woken.clear()
        with pytest.raises(EngineDead):
            engine.poll(0)
        engine.on_ready(woken.set)  # whoever comes later is told too
        assert woken.is_set()
        engine.cancel(1)
        engine.submit(GenerationRequest(99, (50,)))  # accepted, and lost with the rest
        with pytest.raises(EngineDead):
            engine.poll(0)


def test_the_one_who_waits_for_wake_ups_learns_of_the_death(folder: Path) -> None:
    with closing(start(folder, die_at_step=40)) as engine:
        woken = threading.Event()
        engine.on_ready(woken.set)
        engine.submit(GenerationRequest(1, (50,), ENDLESS))
        tokens = 0
        while tokens < 39:  # all that it says before
            assert woken.wait(PATIENCE_SECONDS)
            woken.clear()
            tokens += sum(len(delta.tokens) for delta in engine.poll(0))
        assert woken.wait(PATIENCE_SECONDS)
        with pytest.raises(EngineDead, match="was killed by SIGKILL"):
            engine.poll(0)


def test_a_bug_of_the_core_is_told_in_its_own_words(folder: Path) -> None:
    with closing(start(folder, bug_at_step=5)) as engine:
        engine.submit(GenerationRequest(1, (50,), ENDLESS))
        deltas, error = poll_to_the_end(engine)
        assert sum(len(delta.tokens) for delta in deltas) == 4
        assert "ended with exit code 1: RuntimeError: an unforeseen thing" in str(error)


@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGTERM])
def test_signals_meant_for_the_whole_group_leave_the_worker_alone(
    folder: Path, ignored: signal.Signals
) -> None:
    with closing(start(folder)) as engine:
        worker = running(engine)
        worker.send_signal(ignored)
        for _ in range(20):
            assert engine.poll(PATIENCE_SECONDS)
        assert worker.is_running()


def test_a_stopped_worker_blocks_neither_submit_nor_poll_and_is_killed_by_close(
    folder: Path,
) -> None:
    engine = start(folder)
    worker = running(engine)
    worker.suspend()
    while worker.status() != psutil.STATUS_STOPPED:
        pass
    begin = time.monotonic()
    for request_id in range(100, 150):
        engine.submit(GenerationRequest(request_id, tuple(range(3, 503)) * 8, ENDLESS))
    engine.poll(0)
    assert time.monotonic() - begin < 5.0
    engine.close()
    assert not worker.is_running()


def test_a_worker_that_hangs_in_close_is_killed(folder: Path) -> None:
    engine = start(folder, hang_on_close=True)
    worker = running(engine)
    engine.close()
    assert not worker.is_running()


PARENT = """
import os, sys, threading
from pathlib import Path
from lmi.core import GenerationRequest, Sampling
from lmi.dist import DistConfig, ProcessEngine

engines = []
def load():
    engines.append(ProcessEngine.load(DistConfig(Path(sys.argv[1])), core=sys.argv[2]))
loader = threading.Thread(target=load)  # ends long before the engine, as a pool's thread may
loader.start()
loader.join()
engine, = engines
if sys.argv[3] == "busy":
    engine.submit(GenerationRequest(1, (50,), Sampling(max_new_tokens=4000, ignore_eos=True)))
    assert engine.poll(30)
    assert engine.poll(30)
print(engine.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("state", ["busy", "idle", "stopped"])
def test_the_workers_end_comes_with_the_parents(folder: Path, state: str) -> None:
    (folder / "script.json").write_text('{"step_seconds": 0.002}')
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder), CORE, state],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    with parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        if state == "stopped":
            worker.suspend()
        parent.kill()
        _, alive = psutil.wait_procs([worker], timeout=5)
    assert not alive
