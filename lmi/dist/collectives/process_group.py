"""The operations between ranks through torch.distributed: gloo on a CPU, NCCL on CUDA.

Works everywhere, also between hosts. Bytes always go over gloo: they lie in the host's memory.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from threading import Lock
from typing import Final

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
# From the end of a process's sockets to the end of the process.
_END_SECONDS: Final = 0.2
# What we bound ourselves must not be bounded by gloo.
_FOR_EVER: Final = timedelta(days=3650)
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
        self._aborted: str | None = None
        self._closing = Lock()
        self._open = True
        self._me = Peer.here(self.rank)
        self._peers: list[Peer] = []
        if place.rendezvous.startswith("file://"):  # else gloo asks for the host's name, in vain
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        try:
            dist.init_process_group(
                self.name,
                init_method=place.rendezvous,
                rank=place.rank,
                world_size=place.size,
                timeout=timedelta(seconds=_JOIN_SECONDS),
                device_id=device if device.type == "cuda" else None,
            )
            self._host = dist.new_group(backend="gloo", timeout=_FOR_EVER)
            if device.type == "cuda":
                # NCCL's own watchdog ends a process that waits longer than this.
                self._numbers = dist.new_group(
                    backend="nccl", timeout=timedelta(seconds=timeout), device_id=device
                )
            else:
                self._numbers = self._host
            self._introduce()
        except RuntimeError as error:
            raise EngineDead(
                f"rank {self.rank} of {self.size} did not meet the others at {place.rendezvous}"
            ) from error

    def is_stopped(self, rank: int) -> bool:
        """Whether a rank's process is stopped, as a debugger or SIGSTOP does."""
        return any(peer.rank == rank and peer.fate() == "stopped" for peer in self._peers)

    @property
    def one_host(self) -> bool:
        """Whether all ranks see each other's processes."""
        return len({peer.host for peer in (self._me, *self._peers)}) == 1

    @property
    def group_name(self) -> str:
        """The name under which torch knows the group that the tensors go through."""
        return self._numbers.group_name

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Collective`."""
        began = time.perf_counter()
        if tensor.is_cuda:
            dist.all_reduce(tensor, group=self._numbers)
        elif self.size == 2:  # a sum of two has one order, and gloo's is the quickest
            self._finish(dist.all_reduce(tensor, group=self._numbers, async_op=True), self.timeout)
        else:
            self._sum_in_order(tensor)
        self.seconds += time.perf_counter() - began
        return tensor

    def add_rms_norm(
        self, residual: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        """See `Collective`."""
        return self.kernels.add_rms_norm(residual, self.all_reduce(delta), weight, epsilon)

    def all_gather(self, columns: torch.Tensor) -> torch.Tensor:
        """See `Collective`."""
        began = time.perf_counter()
        rows, width = columns.shape
        parts = columns.new_empty(self.size, rows, width)
        self._gather(parts, columns)
        gathered = parts.transpose(0, 1).reshape(rows, self.size * width)
        self.seconds += time.perf_counter() - began
        return gathered

    def broadcast(self, data: bytes | None) -> bytes:
        """See `Collective`."""
        began = time.perf_counter()
        received = self._broadcast(data)
        self.seconds += time.perf_counter() - began
        return received

    def meet(self, seconds: float) -> None:
        """See `Collective`."""
        self._finish(dist.all_reduce(torch.zeros(1), group=self._host, async_op=True), seconds)

    def tell(self, data: bytes) -> list[bytes]:
        """What every rank tells the others: up to 256 bytes, which come filled up with spaces."""
        mine = torch.frombuffer(bytearray(data[:_TOLD].ljust(_TOLD)), dtype=torch.uint8)
        parts = mine.new_empty(self.size, _TOLD)
        work = dist.all_gather(list(parts), mine, group=self._host, async_op=True)
        self._finish(work, self.timeout)
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
        with self._closing:
            if not self._open:
                return
            self._open = False
        self.abort("the collective is closed")
        dist.destroy_process_group()

    def _introduce(self) -> None:
        mine = torch.tensor([self._me.pid, self._me.started, self._me.host])
        parts = mine.new_empty(self.size, mine.numel())
        work = dist.all_gather(list(parts), mine, group=self._host, async_op=True)
        self._finish(work, _JOIN_SECONDS)
        everybody = [Peer(rank, *numbers) for rank, numbers in enumerate(parts.tolist())]
        self._peers = [peer for peer in everybody if peer.rank != self.rank]

    def _sum_in_order(self, tensor: torch.Tensor) -> None:
        """gloo's ring would add in an order that depends on an element's place in the tensor."""
        parts = tensor.new_empty(self.size, *tensor.shape)
        self._gather(parts, tensor)
        total = parts[0].float()
        for part in parts[1:]:
            total += part
        tensor.copy_(total)

    def _gather(self, parts: torch.Tensor, mine: torch.Tensor) -> None:
        if mine.is_cuda:
            dist.all_gather_into_tensor(parts, mine, group=self._numbers)
        else:
            work = dist.all_gather(list(parts), mine, group=self._numbers, async_op=True)
            self._finish(work, self.timeout)

    def _broadcast(self, data: bytes | None) -> bytes:
        first = torch.zeros(_FIRST, dtype=torch.uint8)
        if data is not None:
            start = len(data).to_bytes(_LENGTH, "little") + data[: _FIRST - _LENGTH]
            first[: len(start)] = torch.frombuffer(bytearray(start), dtype=torch.uint8)
        self._finish(dist.broadcast(first, 0, group=self._host, async_op=True), self.timeout)
        if data is None:
            head = first.numpy().tobytes()
            length = int.from_bytes(head[:_LENGTH], "little")
            start = head[: _LENGTH + length]
        else:
            length = len(data)
        missing = length - (_FIRST - _LENGTH)
        if missing > 0:
            rest = (
                torch.empty(missing, dtype=torch.uint8)
                if data is None
                else torch.frombuffer(bytearray(data[-missing:]), dtype=torch.uint8)
            )
            work = dist.broadcast(rest, 0, group=self._host, async_op=True)
            self._finish(work, self.timeout)
            start += rest.numpy().tobytes()
        return start[_LENGTH:] if data is None else data

    def _finish(self, work: dist.Work, seconds: float) -> None:
        """Wait for gloo's work, for at most `seconds`; EngineDead if it fails or a rank is gone."""
        until = time.monotonic() + seconds
        while True:
            try:
                work.wait(timedelta(seconds=_LOOK_SECONDS))
            except RuntimeError as error:  # also at the end of each look: then it goes on
                if work.is_completed():
                    raise EngineDead(self._fate("a rank is gone")) from error
            else:
                return
            if self._aborted is not None:
                raise EngineDead(self._aborted)
            for peer in self._peers:
                if peer.fate() == "gone":
                    raise EngineDead(f"{peer} is gone")
            if time.monotonic() > until:
                raise EngineDead(self._fate(f"a rank did not answer within {seconds:g} s"))

    def _fate(self, otherwise: str) -> str:
        """Which rank is at fault, if its process shows it; a socket may close before it ends."""
        until = time.monotonic() + _END_SECONDS
        while time.monotonic() < until:
            for peer in self._peers:
                if (fate := peer.fate()) is not None:
                    return f"{peer} is {fate}"
            time.sleep(_END_SECONDS / 20)
        return otherwise
