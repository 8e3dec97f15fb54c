"""Threads of the worker follow what the machine and the container allow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lmi.dist.child import worker_environment
from lmi.dist.cores import available_cores

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
    assert worker_environment(5, {"OMP_NUM_THREADS": "2"})["OMP_NUM_THREADS"] == "5"
    assert worker_environment(None, {"OMP_NUM_THREADS": "2"})["OMP_NUM_THREADS"] == "2"
    assert worker_environment(None, {})["OMP_NUM_THREADS"] == str(available_cores())


def test_the_caches_of_compiled_kernels_are_bounded_unless_told_otherwise() -> None:
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    assert int(worker_environment(1, {})[name]) < 1024
    assert worker_environment(1, {name: "7"})[name] == "7"
