"""Which C++ library is loaded, and the threads that it computes with. No torch here."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lmi.dist.native import library
from lmi.dist.native.library import (
    TARGETS,
    LibraryMissing,
    library_file,
    load_library,
    processor_flags,
    set_threads,
    threads,
)

built = pytest.mark.skipif(
    not list(library.FOLDER.glob("*.so")), reason="the C++ library is not built here"
)


def make(folder: Path, *targets: str) -> None:
    for target in targets:
        (folder / f"lmi_{target}.so").touch()


def test_the_most_capable_file_that_the_processor_can_run_is_taken(tmp_path: Path) -> None:
    make(tmp_path, "x86-64-v4", "x86-64-v3", "x86-64")
    v4, v3, baseline = TARGETS["x86_64"]

    def chosen(flags: frozenset[str]) -> str:
        return library_file("x86_64", flags, tmp_path).stem

    assert chosen(v4.flags | {"more"}) == "lmi_x86-64-v4"
    assert chosen(v4.flags - {"avx512bw"}) == "lmi_x86-64-v3"
    assert chosen(v3.flags - {"fma"}) == "lmi_x86-64"
    assert chosen(baseline.flags) == "lmi_x86-64"


def test_a_file_that_was_not_built_is_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "x86-64")
    assert library_file("x86_64", TARGETS["x86_64"][0].flags, tmp_path).stem == "lmi_x86-64"


def test_a_missing_library_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LibraryMissing, match=r"no lmi_\*\.so .*install a C\+\+ compiler"):
        library_file("x86_64", frozenset(), tmp_path)
    with pytest.raises(LibraryMissing, match="no C\\+\\+ kernels for s390x"):
        library_file("s390x", frozenset(), tmp_path)


def test_processor_flags_are_read_from_the_system(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\n")
    assert processor_flags(file) == {"fpu", "avx2", "fma"}
    assert processor_flags(tmp_path / "missing") == frozenset()
    file.write_text("processor\t: 0\n")
    assert processor_flags(file) == frozenset()


@built
@pytest.mark.parametrize("path", sorted(library.FOLDER.glob("*.so")), ids=lambda p: p.stem)
def test_a_built_file_holds_code_for_the_target_in_its_name(path: Path) -> None:
    flags = processor_flags()
    target = next(t for t in TARGETS[platform.machine()] if path.stem == f"lmi_{t.name}")
    if not target.flags <= flags:
        assert target.name.encode() + b"\0" in path.read_bytes()
        return
    loaded = ctypes.CDLL(str(path))
    loaded.lmi_target.restype = ctypes.c_char_p
    assert loaded.lmi_target() == target.name.encode()


@pytest.fixture
def _one_thread_after() -> Iterator[None]:
    yield
    set_threads(1)


class Norm:
    """RMSNorm of rows of 16: chunks of a thousand rows, so that threads get a few each."""

    def __init__(self, seed: int) -> None:
        self.rows = np.random.default_rng(seed).normal(size=(5000, 16)).astype(np.float32)
        self.weight = np.ones(16, np.float32)
        square = (self.rows.astype(np.float64) ** 2).mean(axis=1, keepdims=True)
        self.wanted = self.rows / np.sqrt(square)
        self.out = np.empty_like(self.rows)

    def check(self, count: int) -> bool:
        self.out.fill(math.nan)
        addresses = (array.ctypes.data for array in (self.rows, self.weight, self.out))
        load_library().lmi_rms_norm(*addresses, count, 16, 0.0)
        done = np.allclose(self.out[:count], self.wanted[:count], rtol=1e-5, atol=1e-6)
        return bool(done and np.isnan(self.out[count:]).all())


@built
@pytest.mark.usefixtures("_one_thread_after")
@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_every_chunk_of_many_small_jobs_is_computed_by_any_number_of_threads(count: int) -> None:
    set_threads(count)
    assert threads() == count
    norm, random = Norm(count), np.random.default_rng(count)
    for rows in random.integers(0, 5000, 200).tolist():
        assert norm.check(rows)


@built
@pytest.mark.usefixtures("_one_thread_after")
def test_several_callers_at_once_each_get_their_own_results() -> None:
    set_threads(3)
    wrong: list[int] = []

    def call(seed: int) -> None:
        norm = Norm(seed)
        counts = np.random.default_rng(seed).integers(0, 5000, 100).tolist()
        wrong.extend(rows for rows in counts if not norm.check(rows))

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@built
@pytest.mark.usefixtures("_one_thread_after")
def test_wrong_thread_counts_and_places_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="threads=0"):
        set_threads(0)
    with pytest.raises(ValueError, match="1 processors for 2 threads"):
        set_threads(2, [0])
    with pytest.raises(OSError, match="can't place 2 threads on processors"):
        set_threads(2, [0, 100_000])
    assert threads() == 1
    assert Norm(0).check(5000)


# A thread that pins itself would keep its place in the whole test process.
_PINNED = """
import os
from lmi.dist.native.library import set_threads, threads
first = min(os.sched_getaffinity(0))
set_threads(2, [first, first])
assert os.sched_getaffinity(0) == {first}
assert threads() == 2
"""

_FORKED = """
import os
from tests.unit.dist.test_native_library import Norm
from lmi.dist.native.library import set_threads, threads
set_threads(3)
assert Norm(0).check(5000)
child = os.fork()
if child == 0:
    fine = threads() == 1 and Norm(1).check(5000)
    set_threads(2)
    fine = fine and Norm(2).check(5000)
    os._exit(0 if fine else 1)
assert os.waitpid(child, 0)[1] == 0
assert Norm(3).check(5000)
"""


@built
@pytest.mark.slow
@pytest.mark.parametrize("script", [_PINNED, _FORKED], ids=["pinned", "forked"])
def test_threads_stay_where_they_are_put_and_a_fork_starts_with_one(script: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
