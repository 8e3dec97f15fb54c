"""What ranks do in the tests of the collectives: each returns what the test compares."""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

import torch

from lmi.core import EngineDead
from lmi.dist.collectives import choose, peers
from lmi.dist.collectives.base import Collective
from lmi.dist.collectives.self_test import ordered_sum
from lmi.dist.collectives.shared_memory import SharedMemory
from lmi.dist.kernels.cpu import CpuKernels
from lmi.dist.native.library import LibraryMissing

Say = Callable[[Any], None]
DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)
# Bytes: around a cache line, the size from which sums are sliced, a buffer, and several.
SIZES: Final = (1, 63, 64, 65, 4096, 32767, 32768, 40001, 262144, 1 << 20, (1 << 20) + 4, 4 << 20)
EPSILON: Final = 1e-5


def numbers(ranks: int, *shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The same on every rank: (ranks, *shape), of very different sizes, so that order shows."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(ranks, *shape, generator=generator)
    return (values * torch.rand(ranks, *shape, generator=generator).mul(12).exp2()).to(dtype)


def digest(tensor: torch.Tensor) -> str:
    """The bits."""
    return sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def sum_all(collective: Collective, say: Say, sizes: tuple[int, ...] = SIZES) -> list[str]:
    """Every type and size: equal to the ordered sum; returns the bits."""
    found = []
    for dtype in DTYPES:
        for size in sizes:
            count = max(1, size // dtype.itemsize)
            parts = numbers(collective.size, count, seed=size, dtype=dtype)
            tensor = parts[collective.rank].clone()
            assert collective.all_reduce(tensor) is tensor
            assert torch.equal(tensor, ordered_sum(parts)), (dtype, size)
            found.append(digest(tensor))
    return [collective.name, *found]


def sum_nothing_finite(collective: Collective, say: Say) -> tuple[bool, bool, bool]:
    """An infinity stays one, a NaN of one rank reaches all, in each type."""
    found = []
    for dtype in DTYPES:
        tensor = torch.zeros(9, dtype=dtype)
        if collective.rank == 1:
            tensor[3], tensor[8] = float("inf"), float("nan")
        collective.all_reduce(tensor)
        odd = ~tensor.isfinite()
        found.append(bool(tensor[3].isposinf() and tensor[8].isnan() and odd.sum() == 2))
    return found[0], found[1], found[2]


def norm_all(
    collective: Collective, say: Say, shapes: tuple[tuple[int, int], ...]
) -> list[tuple[str, str]]:
    """add_rms_norm: the residual exactly, the norm nearly; returns the bits of both."""
    found = []
    for rows, width in shapes:
        parts = numbers(collective.size, rows, width, seed=rows * width)
        before = numbers(1, rows, width, seed=rows)[0]
        weight = torch.linspace(-1, 2, width)
        residual = before.clone()
        normed = collective.add_rms_norm(
            residual, parts[collective.rank].clone(), weight, EPSILON
        ).clone()
        assert torch.equal(residual, before + ordered_sum(parts)), (rows, width)
        wide = residual.double()
        scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + EPSILON)
        wanted = (wide * scale * weight).float()
        assert torch.allclose(normed, wanted, rtol=1e-5, atol=1e-6), (rows, width)
        found.append((digest(residual), digest(normed)))
    return found


def norm_row_by_row(collective: Collective, say: Say, rows: int, width: int) -> bool:
    """Whether every row's bits are the same in a crowd and alone."""
    parts = numbers(collective.size, rows, width, seed=7)
    weight = torch.linspace(0.1, 2, width)
    together = torch.ones(rows, width)
    crowd = collective.add_rms_norm(together, parts[collective.rank].clone(), weight, EPSILON)
    crowd = crowd.clone()
    same = []
    for row in range(rows):
        alone = torch.ones(1, width)
        own = parts[collective.rank, row : row + 1].clone()
        normed = collective.add_rms_norm(alone, own, weight, EPSILON)
        same += [torch.equal(normed[0], crowd[row]), torch.equal(alone[0], together[row])]
    return all(same)


def norm_fused_and_apart(collective: Collective, say: Say, rows: int, width: int) -> bool:
    """Whether the fused operation has the bits of the sum and then the C++ kernels' norm."""
    parts = numbers(collective.size, rows, width, seed=8)
    weight = torch.linspace(-1, 2, width)
    fused, apart = torch.ones(rows, width), torch.ones(rows, width)
    delta = parts[collective.rank]
    normed = collective.add_rms_norm(fused, delta.clone(), weight, EPSILON)
    total = collective.all_reduce(delta.clone())
    wanted = CpuKernels().add_rms_norm(apart, total, weight, EPSILON)
    return torch.equal(fused, apart) and torch.equal(normed, wanted)


def gather_all(collective: Collective, say: Say) -> bool:
    """Columns of several types and widths, more than fit a buffer among them."""
    for rows, width, dtype in (
        (1, 1, torch.float32),
        (3, 5, torch.bfloat16),
        (7, 129, torch.float64),
        (2, 400_001, torch.float32),
        (0, 4, torch.float32),
    ):
        parts = numbers(collective.size, rows, width, seed=width, dtype=dtype)
        found = collective.all_gather(parts[collective.rank])
        wanted = parts.transpose(0, 1).reshape(rows, collective.size * width)
        assert torch.equal(found, wanted), (rows, width, dtype)
    return True


def tell_all(collective: Collective, say: Say) -> bool:
    """Messages of many lengths, many in a row: nobody waits for the slowest but one."""
    lengths = [0, 1, 1015, 1016, 1017, 65535, 65536, 65537, 400_000, *[3] * 50]
    for index, length in enumerate(lengths):
        data = random.Random(index).randbytes(length)
        assert collective.broadcast(data if collective.rank == 0 else None) == data, length
    return True


def mix(collective: Collective, say: Say, seed: int, rounds: int) -> str:
    """All operations in a random order (the same on all ranks), each rank with its own delays."""
    order, delay = random.Random(seed), random.Random(collective.rank)
    bits = sha256()
    for turn in range(rounds):
        if delay.random() < 0.1:
            threading.Event().wait(delay.random() * 0.004)  # other ranks come first
        kind = order.randrange(4)
        size = order.choice((1, 5, 700, 9000, 70_000))
        if kind == 0:
            parts = numbers(collective.size, size, seed=turn)
            found = collective.all_reduce(parts[collective.rank].clone())
            assert torch.equal(found, ordered_sum(parts)), turn
        elif kind == 1:
            parts = numbers(collective.size, size // 700 + 1, 350, seed=turn)
            residual = torch.ones(size // 700 + 1, 350)
            delta = parts[collective.rank].clone()
            collective.add_rms_norm(residual, delta, torch.ones(350), EPSILON)
            assert torch.equal(residual, 1 + ordered_sum(parts)), turn
            found = residual
        elif kind == 2:
            parts = numbers(collective.size, 3, size, seed=turn)
            found = collective.all_gather(parts[collective.rank])
            assert torch.equal(found, parts.transpose(0, 1).reshape(3, -1)), turn
        else:
            said = order.randbytes(size)
            heard = collective.broadcast(said if collective.rank == 0 else None)
            assert heard == said, turn
            bits.update(heard)
            continue
        bits.update(digest(found).encode())
    return bits.hexdigest()


def hear_after_idling(collective: Collective, say: Say, times: int) -> list[float]:
    """Followers' delays, in seconds: from rank 0's message after 20 ms of silence to their ears."""
    delays = []
    for _ in range(times):
        if collective.rank == 0:
            threading.Event().wait(0.02)
            collective.broadcast(time.monotonic_ns().to_bytes(8, "little"))
        else:
            sent = int.from_bytes(collective.broadcast(None), "little")
            delays.append((time.monotonic_ns() - sent) / 1e9)
        collective.meet(10.0)
    return sorted(delays)


def sum_until_dead(collective: Collective, say: Say) -> tuple[str, float]:
    """Sum for ever; returns the error, and when it came, by the clock of all processes."""
    tensor = torch.zeros(100)
    say("ready")
    try:
        while True:
            collective.all_reduce(tensor)
    except EngineDead as dead:
        return str(dead), time.monotonic()


def wait_until_dead(collective: Collective, say: Say) -> tuple[str, float, float]:
    """Rank 0 is silent: others wait for a word. Returns the error, its time, and our CPU time."""
    say("ready")
    if collective.rank == 0:
        threading.Event().wait()
    began = time.process_time()
    try:
        collective.broadcast(None)
    except EngineDead as dead:
        return str(dead), time.monotonic(), time.process_time() - began
    raise AssertionError("rank 0 said nothing")


def abort_from_a_thread(collective: Collective, say: Say) -> tuple[str, float]:
    """The last rank does not come, but aborts from another thread than the waiting one."""
    say("ready")
    if collective.rank == collective.size - 1:
        meanwhile = threading.Event()
        meanwhile.wait(0.3)  # so that the others sleep by now
        say(time.monotonic())
        thread = threading.Thread(target=collective.abort, args=("the watcher's reason",))
        thread.start()
        thread.join()
    try:
        collective.all_reduce(torch.zeros(1))
    except EngineDead as dead:
        return str(dead), time.monotonic()
    raise AssertionError("nobody aborted")


def close_while_waiting(collective: Collective, say: Say) -> tuple[str, str]:
    """Rank 1 closes from another thread while it waits; returns its error and that of a later use.

    Rank 0 waits for rank 1 as well, and learns that it has left.
    """
    if collective.rank == 1:
        threading.Timer(0.2, collective.close).start()
        errors = []
        for _ in range(2):
            try:
                collective.broadcast(None)
            except EngineDead as dead:
                errors.append(str(dead))
        collective.close()
        return errors[0], errors[1]
    try:
        collective.all_reduce(torch.zeros(1))
    except EngineDead as dead:
        return str(dead), ""
    raise AssertionError("rank 1 did not leave")


def disagree(collective: Collective, say: Say) -> str:
    """One rank gathers what the others sum."""
    tensor = torch.zeros(4, 4)
    try:
        if collective.rank == 1:
            collective.all_gather(tensor)
        else:
            collective.all_reduce(tensor)
        collective.all_reduce(tensor)
    except EngineDead as dead:
        return str(dead)
    raise AssertionError("nobody noticed")


def stop_for_longer_than_others_wait(collective: Collective, say: Say) -> str:
    """Rank 1 stops itself; its others give up."""
    if collective.rank == 1:
        say("stopping")
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        collective.all_reduce(torch.zeros(1))
    except EngineDead as dead:
        return str(dead)
    assert collective.rank == 1, "the stopped rank was not missed"
    return "over sockets the others' numbers were there already"


def come_late(collective: Collective, say: Say, seconds: float) -> bool:
    """The last rank is slow, but not so slow that it would count as hung."""
    if collective.rank == collective.size - 1:
        threading.Event().wait(seconds)
    return float(collective.all_reduce(torch.ones(1))) == collective.size


def meet_in_vain(collective: Collective, say: Say) -> str:
    """The last rank does not come within the time that the others give it."""
    if collective.rank == collective.size - 1:
        threading.Event().wait(1.0)
    try:
        collective.meet(0.3)
    except EngineDead as dead:
        return str(dead)
    assert collective.rank == collective.size - 1, "nobody was missed"
    return "over sockets the others were there already"


def name_and_reason(collective: Collective, say: Say) -> tuple[str, str]:
    """What was chosen."""
    return collective.name, collective.reason


def without_library(rank: int) -> None:
    """Rank 1 has no C++ library."""
    if rank == 1:

        def missing() -> Any:
            raise LibraryMissing("it is not built here")

        choose.load_library = missing


def without_memory(rank: int) -> None:
    """Rank 1's container has no memory left for its buffers."""
    if rank == 1:

        def refused(descriptor: int, begin: int, size: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        os.posix_fallocate = refused


def without_processes_of_others(rank: int) -> None:
    """As if rank 1 were in a container of its own."""
    if rank == 1:
        peers._host = lambda: 1


def with_wrong_sums(rank: int) -> None:
    """Rank 1's processor adds wrongly."""
    if rank == 1:
        right = SharedMemory.all_reduce

        def wrong(self: SharedMemory, tensor: torch.Tensor) -> torch.Tensor:
            return right(self, tensor).add_(1)

        SharedMemory.all_reduce = wrong  # type: ignore[method-assign]
