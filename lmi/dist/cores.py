"""How many CPU cores this process may use, and which of them are a rank's own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

from lmi.dist.place import Place

_CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/cpu.max")
_TOPOLOGY: Final = Path("/sys/devices/system/cpu")
# Set by Open MPI's mpirun for ranks that it bound to cores of their own.
_BOUND_BY_MPI: Final = "OMPI_MCA_orte_bound_at_launch"
THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def available_cores(limit: Path = _CGROUP_LIMIT) -> int:
    """The cores of the affinity mask, less where a container's quota is smaller.

    limit: the cgroup's `cpu.max`, "<quota or max> <period>" in microseconds.
    """
    return min(len(os.sched_getaffinity(0)), _quota(limit) or 1 << 20)


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank computes with. cpus: that it keeps to, None for all that it may use."""

    threads: int
    cpus: frozenset[int] | None = None


def share(
    place: Place,
    threads: int | None,
    cpus: Iterable[int],
    *,
    limit: Path = _CGROUP_LIMIT,
    topology: Path = _TOPOLOGY,
) -> Share:
    """A rank's share of `cpus`; the ranks' shares don't overlap.

    Whole cores with all their hardware threads, neighbours together: those share caches and, on
    large machines, memory. threads: how many each rank wants; where that is more than the machine
    has for it, the ranks are not bound to anything. limit, topology: see `available_cores`, and
    Linux's sysfs.
    """
    cores = _by_core(cpus, topology)
    if len(cores) < place.size:  # fewer cores than ranks: hardware threads must do
        cores = [[cpu] for core in cores for cpu in core]
    first, end = (len(cores) * rank // place.size for rank in (place.rank, place.rank + 1))
    own = frozenset(cpu for core in cores[first:end] for cpu in core)
    quota = _quota(limit)
    fitting = min(len(own), max(1, quota // place.size)) if quota else len(own)
    if not own or (threads is not None and threads > len(own)):
        return Share(threads or 1)
    return Share(fitting if threads is None else threads, own)


def settle(place: Place, threads: int | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Keep this process to its share; returns the variables that say so to OpenMP and MKL.

    To be done before torch is imported, which looks at them once. threads None: what `environment`
    says, or as many as there are cores for this rank. A rank alone is not bound to any, and one
    that Open MPI has bound is left where it is.
    """
    if threads is None:
        told = (environment.get(name, "") for name in THREAD_VARIABLES)
        threads = next((int(value) for value in told if value.isdecimal() and int(value)), None)
    if place.size == 1 or _BOUND_BY_MPI in environment:
        count = available_cores() if threads is None else threads
    else:
        mine = share(place, threads, os.sched_getaffinity(0))
        count = mine.threads
        if mine.cpus is not None:
            os.sched_setaffinity(0, mine.cpus)
    return dict.fromkeys(THREAD_VARIABLES, str(count))


def _quota(limit: Path) -> int | None:
    try:
        quota, period = limit.read_text().split()
    except (OSError, ValueError):  # no cgroup of version 2: no quota that we could know
        return None
    return None if quota == "max" else max(1, ceil(int(quota) / int(period)))


def _by_core(cpus: Iterable[int], topology: Path) -> list[list[int]]:
    """The hardware threads of each core, in the order of packages and cores."""
    cores: dict[tuple[int, int], list[int]] = {}
    for cpu in sorted(cpus):
        folder = topology / f"cpu{cpu}" / "topology"
        try:
            package = int((folder / "physical_package_id").read_text())
            core = int((folder / "core_id").read_text())
        except (OSError, ValueError):  # not told: every hardware thread counts as a core
            package, core = -1, cpu
        cores.setdefault((package, core), []).append(cpu)
    return [cores[key] for key in sorted(cores)]
