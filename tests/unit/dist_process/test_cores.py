"""Threads of the worker follow what the machine and the container allow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmi.dist.cores import available_cores, settle, share
from lmi.dist.job import worker_environment
from lmi.dist.place import ALONE, Place

ALL = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000", ALL),
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("100001 100000", min(2, ALL)),
        ("99900000 100000", ALL),
        ("garbage", ALL),
        ("", ALL),
    ],
)
def test_a_containers_quota_limits_the_cores(tmp_path: Path, limit: str, expected: int) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(limit)
    assert available_cores(path) == expected


def test_without_a_cgroup_the_affinity_counts(tmp_path: Path) -> None:
    assert available_cores(tmp_path / "none") == ALL


def test_the_configuration_beats_the_environment() -> None:
    assert settle(ALONE, 5, {"OMP_NUM_THREADS": "2"})["OMP_NUM_THREADS"] == "5"
    assert settle(ALONE, None, {"OMP_NUM_THREADS": "2"})["OMP_NUM_THREADS"] == "2"
    assert settle(ALONE, None, {"MKL_NUM_THREADS": "2"})["OMP_NUM_THREADS"] == "2"
    assert settle(ALONE, None, {})["OMP_NUM_THREADS"] == str(available_cores())
    assert settle(ALONE, None, {"OMP_NUM_THREADS": "all"})["OMP_NUM_THREADS"] == str(
        available_cores()
    )


def test_the_caches_of_compiled_kernels_are_bounded_unless_told_otherwise() -> None:
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    assert int(worker_environment({})[name]) < 1024
    assert worker_environment({name: "7"})[name] == "7"


def shares(
    size: int, cpus: set[int], tmp_path: Path, *, threads: int | None = None, quota: str = "max 1"
) -> list[tuple[int, set[int] | None]]:
    limit = tmp_path / "cpu.max"
    limit.write_text(quota)
    found = [
        share(Place(rank, size, ""), threads, cpus, limit=limit, topology=tmp_path)
        for rank in range(size)
    ]
    return [(one.threads, None if one.cpus is None else set(one.cpus)) for one in found]


def test_ranks_share_the_cores_without_overlap(tmp_path: Path) -> None:
    assert shares(2, {0, 1, 2, 3}, tmp_path) == [(2, {0, 1}), (2, {2, 3})]
    assert shares(2, {1, 5, 7}, tmp_path) == [(1, {1}), (2, {5, 7})]
    assert shares(3, {0, 1, 2}, tmp_path, threads=1) == [(1, {0}), (1, {1}), (1, {2})]


def test_the_two_threads_of_a_core_stay_with_one_rank(tmp_path: Path) -> None:
    for cpu in range(8):  # as many machines number them: 0 and 4 are one core, 1 and 5, ...
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text("0\n")
        (topology / "core_id").write_text(f"{cpu % 4}\n")
    assert shares(2, set(range(8)), tmp_path) == [(4, {0, 1, 4, 5}), (4, {2, 3, 6, 7})]
    assert shares(2, {2, 6}, tmp_path) == [(1, {2}), (1, {6})]


def test_a_quota_is_shared_too(tmp_path: Path) -> None:
    found = shares(2, set(range(8)), tmp_path, quota="400000 100000")
    assert [threads for threads, _ in found] == [2, 2]
    found = shares(4, set(range(8)), tmp_path, quota="200000 100000")
    assert [threads for threads, _ in found] == [1, 1, 1, 1]


def test_ranks_that_want_more_than_there_is_are_not_bound(tmp_path: Path) -> None:
    assert shares(2, {0, 1}, tmp_path, threads=2) == [(2, None), (2, None)]
    assert shares(2, {0}, tmp_path) == [(1, None), (1, {0})]


def test_a_rank_keeps_to_its_share() -> None:
    program = (
        "import os; from lmi.dist.cores import settle; from lmi.dist.place import Place;"
        "settle(Place(1, 2, ''), 1, {}); print(*os.sched_getaffinity(0))"
    )
    command = [sys.executable, "-c", program]
    out = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    assert {int(cpu) for cpu in out.stdout.split()} < os.sched_getaffinity(0)


def test_a_rank_that_mpirun_has_bound_is_left_where_it_is() -> None:
    before = os.sched_getaffinity(0)
    told = settle(Place(1, 2, ""), None, {"OMPI_MCA_orte_bound_at_launch": "1"})
    assert told["OMP_NUM_THREADS"] == str(available_cores())
    assert os.sched_getaffinity(0) == before
