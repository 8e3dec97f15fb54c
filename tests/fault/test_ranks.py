"""What becomes of a job of several ranks when one of them comes to harm."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from lmi.core import ConfigError, Delta, EngineDead, GenerationRequest, ModelError, Sampling
from lmi.dist import DistConfig, ProcessEngine
from tests.support.drive import drive
from tests.support.ranked_core import CORE
from tests.support.trained_tokenizers import byte_level

pytestmark = pytest.mark.slow

ENDLESS: Final = Sampling(max_new_tokens=4000, ignore_eos=True)
SHORT: Final = Sampling(max_new_tokens=5, ignore_eos=True)
PATIENCE_SECONDS: Final = 30.0
SIZE: Final = 3

needs_mpirun = pytest.mark.skipif(
    shutil.which("mpirun") is None, reason="there is no mpirun here (Debian: openmpi-bin)"
)
LAUNCHERS: Final = ["spawn", pytest.param("mpirun", marks=needs_mpirun)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def start(
    folder: Path,
    *,
    launcher: str = "spawn",
    size: int = SIZE,
    timeout: float = 20.0,
    seconds: float = PATIENCE_SECONDS,
    **script: Any,
) -> ProcessEngine:
    (folder / "script.json").write_text(json.dumps({"step_seconds": 0.002, **script}))
    config = DistConfig(folder, tensor_parallel=size, collective_timeout=timeout)
    return ProcessEngine.load(config, core=CORE, mpirun=launcher == "mpirun", seconds=seconds)


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


def running(engine: ProcessEngine) -> list[psutil.Process]:
    """Let some requests run; returns the ranks' processes."""
    for request_id in range(1, 5):
        engine.submit(GenerationRequest(request_id, (50 + request_id,), ENDLESS))
    assert engine.poll(PATIENCE_SECONDS)
    return [psutil.Process(pid) for pid in engine.pids]


def all_gone(processes: list[psutil.Process], seconds: float = 10.0) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not alive


def left_behind(before: set[int]) -> set[int]:
    """Our descendants, mpirun among them, that were not there before."""
    now = {p.pid for p in psutil.Process().children(recursive=True)}
    return now - before


def descendants() -> set[int]:
    return {p.pid for p in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("size", [2, 8])
def test_ranks_say_what_one_rank_says(folder: Path, launcher: str, size: int) -> None:
    requests = [
        GenerationRequest(n, (n, 9), Sampling(max_new_tokens=n, ignore_eos=True))
        for n in range(9, 25)
    ]
    (folder / "script.json").write_text("{}")
    with closing(
        ProcessEngine.load(DistConfig(folder), core="tests.support.scripted_core:ScriptedCore")
    ) as engine:
        alone = {key: said.ids for key, said in drive(engine, requests).items()}
    with closing(start(folder, launcher=launcher, size=size, step_seconds=0)) as engine:
        ranks = [psutil.Process(pid) for pid in engine.pids]
        assert len(ranks) == size
        assert {key: said.ids for key, said in drive(engine, requests).items()} == alone
    assert all_gone(ranks)


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("victim", [0, 2])
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_rank_is_noticed_and_named_and_the_next_load_works(
    folder: Path, launcher: str, victim: int, kill: signal.Signals
) -> None:
    before = descendants()
    with closing(start(folder, launcher=launcher)) as engine:
        ranks = running(engine)
        ranks[victim].send_signal(kill)
        begin = time.monotonic()
        _, error = poll_to_the_end(engine)
        assert time.monotonic() - begin < 1.0
        assert f"rank {victim} of {SIZE} (process {ranks[victim].pid})" in str(error)
        if launcher == "spawn":
            assert str(error).endswith(f"was killed by {kill.name}")
    assert all_gone(ranks)
    assert not left_behind(before)
    with closing(start(folder, launcher=launcher)) as engine:
        said = drive(engine, [GenerationRequest(1, (50,), SHORT)])[1, 0]
        assert len(said.ids) == 5


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_an_idle_job_notices_a_killed_follower(folder: Path, launcher: str) -> None:
    with closing(start(folder, launcher=launcher)) as engine:
        psutil.Process(engine.pids[1]).kill()
        begin = time.monotonic()
        with pytest.raises(EngineDead, match=f"rank 1 of {SIZE}"):
            engine.poll(PATIENCE_SECONDS)
        assert time.monotonic() - begin < 1.0


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_hangs_is_noticed_and_named_after_the_time_out(
    folder: Path, launcher: str, victim: int
) -> None:
    before = descendants()
    with closing(start(folder, launcher=launcher, timeout=1.0)) as engine:
        ranks = running(engine)
        ranks[victim].suspend()
        begin = time.monotonic()
        _, error = poll_to_the_end(engine)
        assert 0.5 < time.monotonic() - begin < 10.0
        assert f"rank {victim} is silent for 1 s" in str(error)
        assert all_gone(ranks, seconds=3.0)  # nobody has to close the engine for that
    assert not left_behind(before)


def test_an_idle_job_notices_a_hung_rank_0(folder: Path) -> None:
    with closing(start(folder, timeout=0.6)) as engine:
        psutil.Process(engine.pids[0]).suspend()
        with pytest.raises(EngineDead, match="rank 0 is silent"):
            engine.poll(PATIENCE_SECONDS)


def test_a_slow_rank_is_waited_for(folder: Path) -> None:
    slow = {"1": {"step_seconds": 0.3}}
    with closing(start(folder, timeout=1.5, ranks=slow)) as engine:
        begin = time.monotonic()
        said = drive(engine, [GenerationRequest(1, (50,), SHORT)])[1, 0]
        assert len(said.ids) == 5
        assert time.monotonic() - begin >= 1.5


def test_idle_ranks_use_no_processor_and_are_not_taken_for_hung(folder: Path) -> None:
    with closing(start(folder, timeout=0.4)) as engine:
        ranks = [psutil.Process(pid) for pid in engine.pids]
        before = [sum(rank.cpu_times()[:2]) for rank in ranks]
        assert engine.poll(1.5) == []
        after = [sum(rank.cpu_times()[:2]) for rank in ranks]
        assert all(b - a < 0.1 for a, b in zip(before, after, strict=True))
        assert len(drive(engine, [GenerationRequest(1, (50,), SHORT)])[1, 0].ids) == 5


def test_a_front_that_does_not_read_hangs_no_follower(folder: Path) -> None:
    """Rank 0 waits for it, and lets the others know that it lives."""
    program = PROGRAM.replace("WORK", "os.kill(os.getpid(), signal.SIGSTOP)")
    with run_front([], program, folder, "0.5", "0") as front:
        ranks = [psutil.Process(int(pid)) for pid in front.stdout.readline().split()]
        while psutil.Process(front.pid).status() != psutil.STATUS_STOPPED:
            pass
        time.sleep(2.0)  # four times what a follower waits for: the sockets are full by then
        assert all(rank.is_running() for rank in ranks)
        front.send_signal(signal.SIGCONT)
        assert front.stdout.readline() == "lives\n"
        front.kill()


def test_what_rank_0_said_before_a_follower_died_is_delivered(folder: Path) -> None:
    with closing(start(folder, ranks={"2": {"die_at_step": 40}})) as engine:
        engine.submit(GenerationRequest(1, (50,), ENDLESS))
        deltas, error = poll_to_the_end(engine)
        assert sum(len(delta.tokens) for delta in deltas) == 39
        assert "rank 2 of 3" in str(error)
        assert str(error).endswith("was killed by SIGKILL")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_failure_of_one_rank_alone_ends_the_job_in_its_own_words(
    folder: Path, victim: int
) -> None:
    with closing(start(folder, ranks={str(victim): {"bug_at_step": 5}})) as engine:
        ranks = running(engine)
        _, error = poll_to_the_end(engine)
        assert f"rank {victim} of {SIZE}" in str(error)
        assert str(error).endswith("RuntimeError: an unforeseen thing")
    assert all_gone(ranks)


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("ModelError", ModelError, "these weights are corrupt"),
        ("ConfigError", ConfigError, "expected float32"),
        ("bug", EngineDead, "RuntimeError: an unforeseen thing"),
        ("die", EngineDead, "rank 1 of 3"),
        ("hang", EngineDead, "not loaded its model within"),
    ],
)
def test_a_rank_that_can_not_load_ends_the_loading(
    folder: Path, launcher: str, how: str, kind: type[Exception], words: str
) -> None:
    before = descendants()
    seconds = 4.0 if how == "hang" else PATIENCE_SECONDS
    with pytest.raises(kind, match=words):
        start(folder, launcher=launcher, seconds=seconds, ranks={"1": {"load": how}})
    assert not left_behind(before)


PROGRAM: Final = """
import os, signal, sys, threading
from pathlib import Path
from lmi.core import GenerationRequest, Sampling
from lmi.dist import DistConfig, ProcessEngine
from lmi.dist.parallel.foreign import follow, is_follower

if is_follower():
    sys.exit(follow())
engines = []
def load():
    size = int(os.environ.get("OMPI_COMM_WORLD_SIZE", "3"))
    config = DistConfig(Path(sys.argv[1]), tensor_parallel=size,
                        collective_timeout=float(sys.argv[2]))
    engines.append(ProcessEngine.load(config, core="tests.support.ranked_core:load",
                                      mpirun=sys.argv[3] == "1"))
loader = threading.Thread(target=load)  # ends long before the engine, as a pool's thread may
loader.start()
loader.join()
engine, = engines
for n in range(1, 30):
    engine.submit(GenerationRequest(n, (50 + n,), Sampling(max_new_tokens=4000, ignore_eos=True)))
assert engine.poll(30)
print(*engine.pids, flush=True)
WORK
assert engine.poll(30)
print("lives", flush=True)
sys.stdin.read()
engine.close()
print("closed", flush=True)
"""


def run_front(
    prefix: list[str], program: str, folder: Path, *arguments: str
) -> subprocess.Popen[str]:
    (folder / "script.json").write_text('{"step_seconds": 0.0001}')
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", program, str(folder), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("stopped", [False, True])
def test_the_ranks_end_with_the_front(folder: Path, launcher: str, stopped: bool) -> None:
    mpirun = str(int(launcher == "mpirun"))
    with run_front([], PROGRAM.replace("WORK", ""), folder, "20", mpirun) as front:
        ranks = [psutil.Process(int(pid)) for pid in front.stdout.readline().split()]
        assert len(ranks) == 3
        family = psutil.Process(front.pid).children(recursive=True)
        assert {rank.pid for rank in ranks} <= {process.pid for process in family}
        if stopped:
            ranks[1].suspend()
        front.kill()
        assert all_gone(family)


MPIRUN: Final = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2"]


@needs_mpirun
def test_processes_of_somebody_elses_mpirun_become_the_ranks(folder: Path) -> None:
    with run_front(MPIRUN, PROGRAM.replace("WORK", ""), folder, "20", "0") as mpirun:
        ranks = [psutil.Process(int(pid)) for pid in mpirun.stdout.readline().split()]
        assert len(ranks) == 2
        assert ranks[1].ppid() == mpirun.pid
        assert mpirun.stdout.readline() == "lives\n"
        mpirun.stdin.close()
        assert mpirun.stdout.readline() == "closed\n"
        assert mpirun.wait(PATIENCE_SECONDS) == 0
    assert all_gone(ranks)


@needs_mpirun
@pytest.mark.parametrize("victim", [0, 1])
def test_ranks_of_somebody_elses_mpirun_do_not_outlive_each_other(
    folder: Path, victim: int
) -> None:
    with run_front(MPIRUN, PROGRAM.replace("WORK", ""), folder, "20", "0") as mpirun:
        ranks = [psutil.Process(int(pid)) for pid in mpirun.stdout.readline().split()]
        ranks[victim].kill()
        assert all_gone(ranks)
        assert mpirun.wait(PATIENCE_SECONDS) != 0
