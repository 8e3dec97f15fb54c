"""The operations between ranks through torch.distributed: gloo on a CPU, NCCL on CUDA.

Works everywhere, also between hosts. Bytes always go over gloo: they lie in the host's memory.

gloo can't be told to give an operation up, and a process with one under way does not exit. So its
own time-out stands right behind ours, and whatever may last longer (`meet`) goes through the store
by which the ranks found each other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Lock
from typing import Final
from urllib.parse import urlsplit

import torch
import torch.distributed as dist

from lmi.core import EngineDead
from lmi.dist.collectives.peers import Peer
from lmi.dist.kernels.base import Kernels
from lmi.dist.kernels.plain import PlainKernels
from lmi.dist.place import Place

# To find each other: torch and CUDA take their time to be imported on a cold disk.
_JOIN_SECONDS: Final = 300.0
# How often a waiting rank looks whether the others live and whether it is to give up.
_LOOK_SECONDS: Final = 0.1
# How often it looks into the store whether the others have come.
_MEET_SECONDS: Final = 0.01
# From the end of a process's sockets to the end of the process.
_END_SECONDS: Final = 0.2
# A broadcast's first message: its length, and all of it if it is small.
_LENGTH: Final = 8
_FIRST: Final = 1024
# What a rank can tell all others at once.
_TOLD: Final = 256


class ProcessGroup:
    """A `Collective` over torch's default process group, which it makes; one per process."""

    def __init__(self, place: Place, device: torch.device, timeout: float) -> None:
        """Meet the other ranks. device: where the tensors are. timeout: in seconds, of a hang.

        Raises EngineDead when they do not all come.
        """
        self.name = "nccl" if device.type == "cuda" else "gloo"
        self.reason = "torch's own"
        self.rank, self.size = place.rank, place.size
        self.seconds = 0.0
        self.kernels: Kernels = PlainKernels(torch.float32)
        self.timeout = timeout
        self.sum_on_device: Callable[[torch.Tensor], None] = self._nccl_sum
        self._aborted: str | None = None
        self._open = True
        self._using = Lock()  # held while an operation uses the group
        self._meetings = 0
        self._me = Peer.here(self.rank)
        self._peers: list[Peer] = []
        if place.rendezvous.startswith("file://"):  # else gloo asks for the host's name, in vain
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        on_device = device if device.type == "cuda" else None
        try:
            self._store = _store(place)
            dist.init_process_group(
                self.name,
                store=self._store,
                rank=place.rank,
                world_size=place.size,
                timeout=timedelta(seconds=_JOIN_SECONDS),
                device_id=on_device,
            )
            limit = timedelta(seconds=timeout + 2 * _LOOK_SECONDS)
            self._host = dist.new_group(backend="gloo", timeout=limit)
            # NCCL's own watchdog ends a process that waits for longer than its time-out.
            self._numbers = (
                self._host
                if on_device is None
                else dist.new_group(backend="nccl", timeout=limit, device_id=on_device)
            )
        except RuntimeError as error:
            raise EngineDead(
                f"rank {self.rank} of {self.size} did not meet the others at {place.rendezvous}"
            ) from error
        self._introduce()

    @property
    def one_host(self) -> bool:
        """Whether all ranks see each other's processes."""
        return len({peer.host for peer in (self._me, *self._peers)}) == 1

    @property
    def group_name(self) -> str:
        """The name under which torch knows the group that the tensors go through."""
        return self._numbers.group_name

    def is_stopped(self, rank: int) -> bool:
        """Whether a rank's process is stopped, as a debugger or SIGSTOP does."""
        return any(peer.rank == rank and peer.fate() == "stopped" for peer in self._peers)

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Collective`."""
        with self._operation():
            if tensor.is_cuda:
                self.sum_on_device(tensor)
            elif self.size == 2:  # a sum of two has one order, and gloo's is the quickest
                self._finish(dist.all_reduce(tensor, group=self._numbers, async_op=True))
            else:
                self._sum_in_order(tensor)
        return tensor

    def add_rms_norm(
        self, residual: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        """See `Collective`."""
        return self.kernels.add_rms_norm(residual, self.all_reduce(delta), weight, epsilon)

    def all_gather(self, columns: torch.Tensor) -> torch.Tensor:
        """See `Collective`."""
        rows, width = columns.shape
        parts = columns.new_empty(self.size, rows, width)
        with self._operation():
            self._gather(parts, columns)
        return parts.transpose(0, 1).reshape(rows, self.size * width)

    def broadcast(self, data: bytes | None) -> bytes:
        """See `Collective`."""
        with self._operation():
            return self._speak(data) if data is not None else self._hear()

    def meet(self, seconds: float) -> None:
        """See `Collective`."""
        self._meetings += 1
        keys = [f"met {self._meetings} {rank}" for rank in range(self.size)]
        until = time.monotonic() + seconds
        with self._operation():
            try:
                self._store.set(keys[self.rank], "")
                while not self._store.check(keys):
                    self._look(until, seconds)
                    time.sleep(_MEET_SECONDS)
            except RuntimeError as error:  # the store is rank 0's
                raise EngineDead(self._fate("rank 0 is gone")) from error

    def tell(self, data: bytes) -> list[bytes]:
        """What every rank tells the others: up to 256 bytes, which come filled up with spaces."""
        mine = torch.frombuffer(bytearray(data[:_TOLD].ljust(_TOLD)), dtype=torch.uint8)
        parts = mine.new_empty(self.size, _TOLD)
        with self._operation():
            self._finish(dist.all_gather(list(parts), mine, group=self._host, async_op=True))
        return [part.numpy().tobytes() for part in parts]

    def agree(self, trouble: str | None) -> str | None:
        """Each rank's trouble, if it has any: all get that of the first who has, or None."""
        mine = b"" if trouble is None else f"rank {self.rank}: {trouble}".encode()
        texts = (text.decode(errors="replace").strip() for text in self.tell(mine))
        return next((text for text in texts if text), None)

    def abort(self, reason: str) -> None:
        """See `Collective`."""
        self._aborted = self._aborted or reason

    def close(self) -> None:
        """See `Collective`."""
        self.abort("the collective is closed")
        with self._using:  # an operation of another thread ends at its next look
            if self._open:
                dist.destroy_process_group()
            self._open = False

    def _nccl_sum(self, tensor: torch.Tensor) -> None:
        dist.all_reduce(tensor, group=self._numbers)

    def _introduce(self) -> None:
        mine = torch.tensor([self._me.pid, self._me.started, self._me.host])
        parts = mine.new_empty(self.size, mine.numel())
        with self._operation():
            self._finish(dist.all_gather(list(parts), mine, group=self._host, async_op=True))
        everybody = [Peer(rank, *numbers) for rank, numbers in enumerate(parts.tolist())]
        self._peers = [peer for peer in everybody if peer.rank != self.rank]

    def _sum_in_order(self, tensor: torch.Tensor) -> None:
        """gloo's ring would add in an order that depends on an element's place in the tensor."""
        parts = tensor.new_empty(self.size, *tensor.shape)
        self._gather(parts, tensor)
        total = parts[0].to(torch.promote_types(tensor.dtype, torch.float32), copy=True)
        for part in parts[1:]:
            total += part
        tensor.copy_(total)

    def _gather(self, parts: torch.Tensor, mine: torch.Tensor) -> None:
        if mine.is_cuda:
            dist.all_gather_into_tensor(parts, mine, group=self._numbers)
        elif mine.numel():  # gloo refuses tensors of nothing
            self._finish(dist.all_gather(list(parts), mine, group=self._numbers, async_op=True))

    def _speak(self, data: bytes) -> bytes:
        start = len(data).to_bytes(_LENGTH, "little") + data[: _FIRST - _LENGTH]
        self._send(bytearray(start.ljust(_FIRST)))
        if len(data) > _FIRST - _LENGTH:
            self._send(bytearray(data[_FIRST - _LENGTH :]))
        return data

    def _hear(self) -> bytes:
        first = self._send(bytearray(_FIRST))
        length = int.from_bytes(first[:_LENGTH], "little")
        missing = length - (_FIRST - _LENGTH)
        if missing <= 0:
            return bytes(first[_LENGTH : _LENGTH + length])
        return bytes(first[_LENGTH:] + self._send(bytearray(missing)))

    def _send(self, data: bytearray) -> bytearray:
        """From rank 0, in place."""
        tensor = torch.frombuffer(data, dtype=torch.uint8)
        self._finish(dist.broadcast(tensor, 0, group=self._host, async_op=True))
        return data

    @contextmanager
    def _operation(self) -> Iterator[None]:
        began = time.perf_counter()
        with self._using:
            if self._aborted is not None:
                raise EngineDead(self._aborted)
            yield
        self.seconds += time.perf_counter() - began

    def _finish(self, work: dist.Work) -> None:
        """Wait for gloo's work; EngineDead if it fails, is late or aborted, or a rank is gone."""
        until = time.monotonic() + self.timeout
        while True:
            try:
                work.wait(timedelta(seconds=_LOOK_SECONDS))
            except RuntimeError as error:  # also at the end of each look: then it goes on
                if work.is_completed():
                    raise EngineDead(self._fate("a rank is gone")) from error
            else:
                return
            self._look(until, self.timeout)

    def _look(self, until: float, seconds: float) -> None:
        if self._aborted is not None:
            raise EngineDead(self._aborted)
        for peer in self._peers:
            if peer.fate() == "gone":
                raise EngineDead(f"{peer} is gone")
        if time.monotonic() > until:
            raise EngineDead(f"{self._fate('a rank did not answer')}, for {seconds:g} s")

    def _fate(self, otherwise: str) -> str:
        """Which rank is at fault, if its process shows it; a socket may close before it ends."""
        until = time.monotonic() + _END_SECONDS
        while time.monotonic() < until:
            for peer in self._peers:
                if (fate := peer.fate()) is not None:
                    return f"{peer} is {fate}"
            time.sleep(_END_SECONDS / 20)
        return otherwise


def _store(place: Place) -> dist.Store:
    """Where the ranks find each other. Raises RuntimeError."""
    url = urlsplit(place.rendezvous)
    if url.scheme == "file":
        return dist.FileStore(url.path, place.size)
    return dist.TCPStore(
        url.hostname,
        url.port,
        place.size,
        is_master=place.rank == 0,
        timeout=timedelta(seconds=_JOIN_SECONDS),
    )
