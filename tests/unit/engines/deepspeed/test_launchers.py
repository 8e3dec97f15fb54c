"""Which environments mean that a launcher has started this process as a rank."""

from __future__ import annotations

import pytest

from lmi.dist.parallel.foreign import is_follower
from lmi.dist.parallel.launch import Gather, Spawn, launcher_for
from lmi.dist.parallel.meeting import launched_place

TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}
DEEPSPEED = {**TORCHRUN, "LOCAL_SIZE": "2"}
del DEEPSPEED["LOCAL_WORLD_SIZE"]
MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "PMIX_NAMESPACE": "7",
}


@pytest.mark.parametrize("environment", [TORCHRUN, DEEPSPEED, MPIRUN])
def test_a_launcher_says_which_rank_of_how_many(environment: dict[str, str]) -> None:
    place = launched_place(environment)
    assert place is not None
    assert (place.rank, place.size) == (1, 2)
    assert is_follower(environment)
    assert isinstance(launcher_for(2, False, environment), Gather)


@pytest.mark.parametrize("missing", sorted(TORCHRUN))
def test_less_than_a_launcher_sets_means_nothing(missing: str) -> None:
    environment = {name: value for name, value in TORCHRUN.items() if name != missing}
    assert launched_place(environment) is None
    assert isinstance(launcher_for(2, False, environment), Spawn)


def test_ranks_on_several_hosts_do_not_meet_here() -> None:
    assert launched_place({**TORCHRUN, "RANK": "3", "WORLD_SIZE": "4"}) is None


def test_two_jobs_of_one_host_meet_under_different_names() -> None:
    other = {**TORCHRUN, "MASTER_PORT": "29501"}
    one, two = launched_place(TORCHRUN), launched_place(other)
    assert one is not None
    assert two is not None
    assert one.name != two.name


def test_as_many_processes_as_ranks_or_our_own() -> None:
    assert isinstance(launcher_for(4, False, TORCHRUN), Spawn)
    assert isinstance(launcher_for(1, False, TORCHRUN), Spawn)
