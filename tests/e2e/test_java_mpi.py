"""Ranks that Java itself starts with `mpirun`, as it does for engine=MPI. No GPU: Java's question
for devices is answered by a library of ours."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.java_build import PROJECT, Unavailable, build
from tests.support.java_driver import JavaDriver
from tests.support.java_folders import demo_folder, engine_cache

pytestmark = pytest.mark.slow

LOAD_SECONDS = 120.0  # two ranks that import torch, on a busy machine
OPTIONS = {
    "engine": "MPI",
    "option.rolling_batch": "lmi-dist",
    "option.tensor_parallel_degree": "2",
}
SHORT = {"inputs": "Return the name of", "parameters": {"max_new_tokens": 4}}
LONG = {
    "inputs": "Return the name of",
    "parameters": {"max_new_tokens": 900, "ignore_eos_token": True},
    "stream": True,
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CUDA runtime that sees two devices."""
    for tool in ("mpirun", "gcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no `{tool}` on the PATH")
    folder = tmp_path_factory.mktemp("cudart")
    source = PROJECT / "native" / "cudart.c"
    command = ["gcc", "-shared", "-fPIC", "-o", str(folder / "libcudart.so"), str(source)]
    subprocess.run(command, check=True, timeout=60)
    return folder


@contextlib.contextmanager
def loaded(version: str, library: Path, root: Path) -> Iterator[JavaDriver]:
    try:
        build(version)
    except Unavailable as missing:
        pytest.skip(str(missing))
    folder = demo_folder(root / "model", OPTIONS)
    with JavaDriver(
        version,
        engine_cache(root, version),
        root,
        flags=[f"-Djna.library.path={library}"],
        environ={"OMPI_MCA_rmaps_base_oversubscribe": "1"},
    ) as java:
        java.load(folder, engine="MPI", seconds=LOAD_SECONDS)
        yield java


def test_two_ranks_of_javas_mpirun_are_one_model(library: Path, tmp_path: Path) -> None:
    with loaded("0.34.0", library, tmp_path) as java:
        launcher, *ranks = java.workers()
        assert launcher.name() == "mpirun"
        assert [java.predict(SHORT).json() for _ in range(3)] == [
            {"generated_text": " the name.\n"}
        ] * 3

        # A rank's engine is killed: each live request ends, and Java brings the ranks back.
        pending = [java.submit(LONG) for _ in range(4)]
        for waiting in pending:
            waiting.begun.result(30)
        killed = time.monotonic()
        of_rank_one = [rank for rank in ranks if rank.environ().get("OMPI_COMM_WORLD_RANK") == "1"]
        engine = max(of_rank_one, key=lambda rank: rank.memory_info().rss)
        engine.send_signal(signal.SIGKILL)
        answers = [waiting.answer.result(30) for waiting in pending]
        assert [answer.trouble for answer in answers] == [None] * 4
        assert time.monotonic() - killed < 5.0
        java.predict_until(SHORT, '{"generated_text": " the name.\\n"}', LOAD_SECONDS)

        everything = java.workers()
        java.close_model()
        _, alive = psutil.wait_procs(everything, 15)
        assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_java_that_asks_every_rank_is_told_what_to_set(library: Path, tmp_path: Path) -> None:
    # 0.25.0 sends each step to all ranks, and takes the last one's answer for the model's.
    with loaded("0.25.0", library, tmp_path) as java:
        answer = java.predict(SHORT)
        assert answer.trouble is None
        assert "use_passive_workers" in answer.json()["error"]
