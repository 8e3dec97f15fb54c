"""The operations between ranks of one host, over memory that they share.

An all-reduce of a decode step takes a few microseconds here, where sockets take hundreds: see
benchmarks/collectives.py. The work and the waiting are in C++ (`lmi/dist/native/ranks.h`).
"""

from __future__ import annotations

import ctypes
import time
from threading import Lock
from typing import Final, NoReturn

import torch

from lmi.core import EngineDead
from lmi.dist.collectives.joining import join_segment
from lmi.dist.collectives.native import FORMATS, Outcome, RanksLibrary, parse
from lmi.dist.collectives.process_group import ProcessGroup
from lmi.dist.kernels.base import Kernels
from lmi.dist.kernels.cpu_linear import Outputs

# Of one data buffer; a rank has two. Longer tensors go in pieces.
BUFFER_BYTES: Final = 1 << 20
# What a follower can hear without asking for more memory.
_MESSAGE_BYTES: Final = 64 * 1024


class SharedMemory:
    """A `Collective` over one segment. Made by `join`."""

    name = "shared memory"

    def __init__(
        self, library: RanksLibrary, handle: int, group: ProcessGroup, buffer_bytes: int
    ) -> None:
        self.reason = "all ranks are on this host"
        self.rank, self.size = group.rank, group.size
        self.seconds = 0.0
        self._library = library
        self._handle: int | None = handle
        self._group = group
        self._buffer_bytes = buffer_bytes
        self._message = ctypes.create_string_buffer(_MESSAGE_BYTES)
        self._normed = Outputs()
        self._weights: dict[int, tuple[torch.Tensor, torch.Tensor, int]] = {}
        self._length = ctypes.c_int64()
        self._using = Lock()  # held while an operation uses the segment, which may be long
        self._ending = Lock()  # held by abort and close, for an instant

    @classmethod
    def join(
        cls, library: RanksLibrary, group: ProcessGroup, buffer_bytes: int = BUFFER_BYTES
    ) -> SharedMemory | str:
        """Attach to the segment with all other ranks; or why that is not possible on some rank.

        All ranks call it together and all get the one or the other. buffer_bytes: a multiple of the
        page size.
        """
        handle = join_segment(library, group, buffer_bytes)
        return handle if isinstance(handle, str) else cls(library, handle, group, buffer_bytes)

    @property
    def kernels(self) -> Kernels:
        """See `Collective`."""
        return self._group.kernels

    @kernels.setter
    def kernels(self, kernels: Kernels) -> None:
        self._group.kernels = kernels

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Collective`. float64 goes over sockets."""
        began = time.perf_counter()
        number_format = FORMATS.get(tensor.dtype)
        if number_format is None:
            self._group.all_reduce(tensor)
        else:
            _check_contiguous(tensor)
            with self._using:
                outcome = self._library.all_reduce(
                    self._live(), tensor.data_ptr(), tensor.numel(), number_format
                )
            if outcome:
                self._fail(outcome)
        self.seconds += time.perf_counter() - began
        return tensor

    def add_rms_norm(
        self, residual: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        """See `Collective`. Fused for float32."""
        width = delta.shape[-1]
        fused = residual.dtype == delta.dtype == torch.float32
        if not fused or width * delta.element_size() > self._buffer_bytes:
            return self.kernels.add_rms_norm(residual, self.all_reduce(delta), weight, epsilon)
        began = time.perf_counter()
        _check_contiguous(residual, delta)
        rows = delta.numel() // width
        normed, address = self._normed.take(rows, width)
        with self._using:
            outcome = self._library.add_rms_norm(
                self._live(),
                residual.data_ptr(),
                delta.data_ptr(),
                self._floats(weight),
                address,
                rows,
                width,
                epsilon,
            )
        if outcome:
            self._fail(outcome)
        self.seconds += time.perf_counter() - began
        return normed

    def all_gather(self, columns: torch.Tensor) -> torch.Tensor:
        """See `Collective`."""
        began = time.perf_counter()
        _check_contiguous(columns)
        rows, width = columns.shape
        gathered = columns.new_empty(rows, self.size * width)
        with self._using:
            outcome = self._library.all_gather(
                self._live(),
                columns.data_ptr(),
                gathered.data_ptr(),
                rows,
                width * columns.element_size(),
            )
        if outcome:
            self._fail(outcome)
        self.seconds += time.perf_counter() - began
        return gathered

    def broadcast(self, data: bytes | None) -> bytes:
        """See `Collective`."""
        began = time.perf_counter()
        if data is None:
            data = self._hear()
        else:
            with self._using:
                outcome = self._library.speak(self._live(), data, len(data))
            if outcome:
                self._fail(outcome)
        self.seconds += time.perf_counter() - began
        return data

    def meet(self, seconds: float) -> None:
        """See `Collective`."""
        with self._using:
            outcome = self._library.meet(self._live(), seconds)
        if outcome:
            self._fail(outcome, seconds)

    def abort(self, reason: str) -> None:
        """See `Collective`."""
        with self._ending:
            if self._handle is not None:
                self._library.abort(self._handle, reason.encode())
        self._group.abort(reason)

    def close(self) -> None:
        """See `Collective`."""
        self.leave()
        self._group.close()

    def leave(self) -> None:
        """Give the segment back, and keep torch's group."""
        with self._ending:
            if self._handle is None:
                return
            self._library.shut(self._handle)
        with self._using, self._ending:  # an operation of another thread has ended by now
            if self._handle is not None:
                self._library.detach(self._handle)
            self._handle = None

    def _hear(self) -> bytes:
        while True:
            with self._using:
                outcome = self._library.hear(
                    self._live(), self._message, len(self._message), self._length
                )
            if outcome:
                self._fail(outcome)
            length = self._length.value
            if length <= len(self._message):
                return ctypes.string_at(self._message, length)
            self._message = ctypes.create_string_buffer(length)

    def _floats(self, weight: torch.Tensor) -> int:
        """The address of the weight's numbers in float32, which are kept with it."""
        kept = self._weights.get(id(weight))
        if kept is None:
            wide = weight.float().contiguous()
            kept = self._weights[id(weight)] = (weight, wide, wide.data_ptr())
        return kept[2]

    def _live(self) -> int:
        if self._handle is None:
            raise EngineDead("the collective is closed")
        return self._handle

    def _fail(self, outcome: int, seconds: float | None = None) -> NoReturn:
        """Raise EngineDead for what a C++ function returned, and tell the other ranks."""
        seconds = self._group.timeout if seconds is None else seconds
        kind, rank = parse(outcome)
        with self._using:
            handle = self._live()
            if kind is Outcome.ABORTED:
                reason = self._library.reason(handle).decode(errors="replace")
            else:
                who = f"rank {rank} (process {self._library.process(handle, rank)})"
                late = "is stopped" if self._group.is_stopped(rank) else "did not answer"
                reason = {
                    Outcome.TIMED_OUT: f"{who} {late}, for {seconds:g} s",
                    Outcome.GONE: f"{who} is gone",
                    Outcome.LEFT: f"{who} has closed its collective",
                    Outcome.MISMATCH: f"{who} called another operation than rank {self.rank}",
                }[kind]
        self.abort(reason)
        raise EngineDead(reason)


def _check_contiguous(*tensors: torch.Tensor) -> None:
    for tensor in tensors:
        if not tensor.is_contiguous():
            raise ValueError(
                f"the ranks exchange contiguous tensors only, not strides {tensor.stride()} of "
                f"shape {tuple(tensor.shape)}"
            )
