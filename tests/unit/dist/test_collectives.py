"""Ranks in processes of their own: the same sums everywhere, and a way out of every silence."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmi.dist.collectives.symmetric_memory import Abilities
from lmi.dist.native.library import LibraryMissing, load_library
from tests.support import rank_bodies as bodies
from tests.support.ranks import Job, ranks

try:
    load_library()
except LibraryMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

MEANS = pytest.mark.parametrize("custom", [True, False], ids=["shared memory", "gloo"])


def results(size: int, folder: Path, body: bodies.Say, *arguments: Any, **options: Any) -> Any:
    with ranks(size, folder, body, *arguments, **options) as job:
        return job.results()


def one_result(size: int, folder: Path, body: bodies.Say, *arguments: Any, **options: Any) -> Any:
    """What all ranks returned alike."""
    first, *others = results(size, folder, body, *arguments, **options)
    assert others == [first] * (size - 1)
    return first


@pytest.mark.parametrize("size", [2, 3, 4])
def test_every_rank_gets_the_sum_in_the_order_of_the_ranks(size: int, tmp_path: Path) -> None:
    assert one_result(size, tmp_path, bodies.sum_all)[0] == "shared memory"


def test_eight_ranks_on_fewer_cores_sum_alike(tmp_path: Path) -> None:
    assert one_result(8, tmp_path, bodies.sum_all, (4, 4097, 300_000))[0] == "shared memory"


@pytest.mark.parametrize("size", [2, 3])
def test_the_bits_of_a_sum_do_not_depend_on_the_means(size: int, tmp_path: Path) -> None:
    few = (4, 4097, 300_000)
    found = []
    for custom in (True, False):
        folder = tmp_path / str(custom)
        folder.mkdir()
        found.append(one_result(size, folder, bodies.sum_all, few, custom=custom))
    (first, *shared), (second, *sockets) = found
    assert (first, second) == ("shared memory", "gloo")
    assert shared == sockets


@MEANS
def test_what_is_not_finite_reaches_every_rank(custom: bool, tmp_path: Path) -> None:
    found = results(3, tmp_path, bodies.sum_nothing_finite, custom=custom)
    assert found == [(True, True, True)] * 3


@MEANS
@pytest.mark.parametrize("size", [2, 3])
def test_a_normed_sum_has_the_sums_exact_residual(size: int, custom: bool, tmp_path: Path) -> None:
    # 300,000 columns are more than a buffer, 64 rows of 9,000 several buffers.
    shapes = ((1, 1), (1, 17), (2, 768), (5, 1023), (33, 768), (64, 9000), (1, 300_000))
    one_result(size, tmp_path, bodies.norm_all, shapes, custom=custom)


def test_a_row_is_summed_and_normed_alike_alone_and_in_a_crowd(tmp_path: Path) -> None:
    assert one_result(3, tmp_path, bodies.norm_row_by_row, 40, 531)


@pytest.mark.parametrize("rows", [1, 40])
def test_the_fused_norm_has_the_bits_of_the_kernels_own(rows: int, tmp_path: Path) -> None:
    assert one_result(2, tmp_path, bodies.norm_fused_and_apart, rows, 1031)


@MEANS
@pytest.mark.parametrize("size", [2, 3])
def test_columns_of_all_ranks_stand_side_by_side(size: int, custom: bool, tmp_path: Path) -> None:
    assert one_result(size, tmp_path, bodies.gather_all, custom=custom)


@MEANS
@pytest.mark.parametrize("size", [2, 3])
def test_all_ranks_hear_every_message_whole(size: int, custom: bool, tmp_path: Path) -> None:
    assert one_result(size, tmp_path, bodies.tell_all, custom=custom)


def test_a_sleeping_follower_wakes_when_it_is_spoken_to(tmp_path: Path) -> None:
    _, delays = results(2, tmp_path, bodies.hear_after_idling, 40)
    assert delays[len(delays) // 2] < 0.002  # one that nobody wakes looks every 8 ms


@pytest.mark.parametrize(("size", "seed"), [(2, 1), (3, 2), (4, 3)])
def test_operations_in_any_order_with_any_delays_stay_in_step(
    size: int, seed: int, tmp_path: Path
) -> None:
    one_result(size, tmp_path, bodies.mix, seed, 250)


def test_two_jobs_at_once_keep_apart(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    with (
        ranks(2, folders[0], bodies.mix, 5, 150) as one,
        ranks(2, folders[1], bodies.mix, 6, 150) as two,
    ):
        first, second = one.results(), two.results()
    assert first[0] == first[1] != second[0] == second[1]


def kill(job: Job, rank: int) -> float:
    for other in range(len(job.pids)):
        assert job.said(other) == "ready"
    os.kill(job.pids[rank], signal.SIGKILL)
    return time.monotonic()


@MEANS
@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_rank_is_named_within_a_second(victim: int, custom: bool, tmp_path: Path) -> None:
    with ranks(3, tmp_path, bodies.sum_until_dead, custom=custom) as job:
        killed = kill(job, victim)
        for rank in {0, 1, 2} - {victim}:
            error, at = job.said(rank)
            assert error == f"rank {victim} (process {job.pids[victim]}) is gone"
            assert at - killed < 1.0


@MEANS
def test_followers_of_a_killed_rank_wake_up(custom: bool, tmp_path: Path) -> None:
    with ranks(3, tmp_path, bodies.wait_until_dead, custom=custom) as job:
        killed = kill(job, 0)
        for rank in (1, 2):
            error, at, _ = job.said(rank)
            assert error == f"rank 0 (process {job.pids[0]}) is gone"
            assert at - killed < 1.0


@MEANS
def test_followers_of_a_silent_rank_give_up_and_burn_no_processor(
    custom: bool, tmp_path: Path
) -> None:
    with ranks(2, tmp_path, bodies.wait_until_dead, custom=custom, timeout=2.0) as job:
        assert [job.said(rank) for rank in (0, 1)] == ["ready", "ready"]
        error, _, burnt = job.said(1)
        assert "2 s" in error
        assert burnt < 0.2


@MEANS
def test_a_stopped_rank_is_named_after_the_time_out(custom: bool, tmp_path: Path) -> None:
    body = bodies.stop_for_longer_than_others_wait
    with ranks(3, tmp_path, body, custom=custom, timeout=1.0) as job:
        assert job.said(1) == "stopping"
        for rank in (0, 2):
            assert job.said(rank).startswith(f"rank 1 (process {job.pids[1]}) is stopped")
        os.kill(job.pids[1], signal.SIGCONT)
        assert isinstance(job.said(1), str)  # it learns that the others gave up


@MEANS
def test_a_slow_rank_is_waited_for(custom: bool, tmp_path: Path) -> None:
    assert one_result(2, tmp_path, bodies.come_late, 1.0, custom=custom, timeout=10.0)


@MEANS
def test_ranks_meet_for_as_long_as_they_are_told(custom: bool, tmp_path: Path) -> None:
    early, late = results(2, tmp_path, bodies.meet_in_vain, custom=custom)
    assert "0.3 s" in early
    assert isinstance(late, str)


def test_an_abort_reaches_every_waiting_rank_within_ten_milliseconds(tmp_path: Path) -> None:
    with ranks(3, tmp_path, bodies.abort_from_a_thread) as job:
        assert [job.said(rank) for rank in range(3)] == ["ready"] * 3
        aborted = job.said(2)
        delays = []
        for rank in range(3):
            error, at = job.said(rank)
            assert error == "the watcher's reason"
            delays.append(at - aborted)
    # Ten milliseconds is what it takes; a busy machine may let a woken process wait for longer.
    assert min(delays[:2]) < 0.01 or max(delays) < 0.1


def test_an_abort_over_sockets_ends_the_waiting_of_its_rank(tmp_path: Path) -> None:
    with ranks(2, tmp_path, bodies.abort_from_a_thread, custom=False) as job:
        assert job.said(1) == "ready"
        aborted = job.said(1)
        error, at = job.said(1)
        assert error == "the watcher's reason"
        assert at - aborted < 0.5


@MEANS
def test_closing_ends_this_ranks_waiting_and_tells_the_others(custom: bool, tmp_path: Path) -> None:
    (error, _), (during, after) = results(
        2, tmp_path, bodies.close_while_waiting, custom=custom, timeout=3.0
    )
    # Over sockets a rank that has closed is as silent as one that hangs, until its process ends.
    assert "has closed" in error or not custom
    assert "closed" in during
    assert "closed" in after


def test_ranks_that_are_not_in_step_say_so(tmp_path: Path) -> None:
    for error in results(3, tmp_path, bodies.disagree):
        assert "called another operation" in error


def test_ranks_that_do_not_exchange_over_memory_say_why(tmp_path: Path) -> None:
    found = one_result(2, tmp_path, bodies.name_and_reason, custom=False)
    assert found == ("gloo", "custom_all_reduce is off")


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (bodies.without_library, "rank 1: it is not built here"),
        (
            bodies.without_memory,
            "rank 1: can't attach rank 0's segment: No space left on device",
        ),
        (bodies.without_processes_of_others, "the ranks are on different hosts"),
        (bodies.with_wrong_sums, "rank 1: the self-test's sum of 1 numbers"),
    ],
)
def test_a_rank_that_can_not_share_memory_takes_all_ranks_to_sockets(
    prepare: Callable[[int], None], why: str, tmp_path: Path
) -> None:
    name, reason = one_result(3, tmp_path, bodies.name_and_reason, prepare=prepare)
    assert name == "gloo"
    assert reason.startswith(why)


def test_ranks_find_each_other_by_an_address_too(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    assert one_result(2, tmp_path, bodies.tell_all, custom=False, rendezvous=address)


def test_nothing_is_left_of_ranks_that_were_killed(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    with ranks(2, tmp_path, bodies.sum_until_dead) as job:
        kill(job, 0)
        os.kill(job.pids[1], signal.SIGKILL)
    assert set(os.listdir("/dev/shm")) <= before


@pytest.mark.parametrize(
    ("ranks_", "multicast", "size", "dtype", "way"),
    [
        (2, False, 16, torch.float32, "one-shot"),
        (2, True, 128 << 10, torch.bfloat16, "one-shot"),
        (2, True, (128 << 10) + 16, torch.bfloat16, "two-shot"),
        (8, False, 8 << 20, torch.float32, "two-shot"),
        (4, True, 16, torch.bfloat16, "multimem"),
        (8, True, 8 << 20, torch.float32, "multimem"),
        (8, True, (8 << 20) + 16, torch.float32, None),  # too long
        (4, True, 24, torch.bfloat16, None),  # no whole number of vectors
        (4, False, 0, torch.float32, None),
        (2, False, 1024, torch.float16, None),  # torch has no kernel
    ],
)
def test_the_way_to_sum_on_gpus_follows_from_size_and_abilities(
    ranks_: int, multicast: bool, size: int, dtype: torch.dtype, way: str | None
) -> None:
    abilities = Abilities(one_host=True, peers=True, multicast=multicast, ranks=ranks_)
    assert abilities.trouble() is None
    assert abilities.way(size, dtype) == way


@pytest.mark.parametrize(
    ("one_host", "peers", "why"),
    [(False, True, "different hosts"), (True, False, "can't read the memory")],
)
def test_gpus_that_do_not_see_each_others_memory_leave_sums_to_nccl(
    one_host: bool, peers: bool, why: str
) -> None:
    trouble = Abilities(one_host, peers, multicast=True, ranks=4).trouble()
    assert trouble is not None
    assert why in trouble
