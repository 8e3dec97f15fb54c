"""Which call goes to which worker, and when: no process, no socket, no clock of its own.

Calls wait in the order of arrival. A worker with a plain function takes one batch when it is free:
at once where the batch is full, else when its first call has waited for `max_delay`. A worker with
an `async` handler takes calls one by one, up to its capacity. Who has the fewest calls comes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lmi.core import Call

Batch = list[tuple[int, Call]]


@dataclass(slots=True)
class _Bench:
    """A worker's calls, each with the time of its last sign of life. capacity: see `Ready`."""

    capacity: int
    running: dict[int, float] = field(default_factory=dict)

    @property
    def free(self) -> int:
        """How many more calls it takes; 1 stands for one batch."""
        return self.capacity - len(self.running) if self.capacity else int(not self.running)


class Desk:
    """The calls that wait and those that run. Times are in seconds of one clock."""

    def __init__(self, batch_size: int, max_delay: float, main: str) -> None:
        """main: the function that is batched; calls for others go alone."""
        self._batch_size = batch_size
        self._max_delay = max_delay
        self._main = main
        self._waiting: dict[int, tuple[Call, float]] = {}  # in the order of arrival
        self._benches: dict[int, _Bench] = {}
        self._where: dict[int, int] = {}  # the worker of each running call

    @property
    def waiting(self) -> int:
        """Calls that no worker has."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Calls that a worker has."""
        return len(self._where)

    @property
    def calls(self) -> list[int]:
        """All of them."""
        return [*self._where, *self._waiting]

    def add_worker(self, worker: int, capacity: int) -> None:
        """A worker is ready."""
        self._benches[worker] = _Bench(capacity)

    def remove_worker(self, worker: int) -> list[int]:
        """A worker is gone; the calls that it had are, too."""
        bench = self._benches.pop(worker, None)
        lost = [] if bench is None else list(bench.running)
        for call_id in lost:
            del self._where[call_id]
        return lost

    def load(self, worker: int) -> int:
        """How many calls a worker has."""
        bench = self._benches.get(worker)
        return 0 if bench is None else len(bench.running)

    def submit(self, call_id: int, call: Call, now: float) -> None:
        """A call has come."""
        self._waiting[call_id] = (call, now)

    def drop(self, call_id: int) -> bool:
        """Forget a call that waits; False where it does not."""
        return self._waiting.pop(call_id, None) is not None

    def worker_of(self, call_id: int) -> int | None:
        """Who has a call; None where it waits or is over."""
        return self._where.get(call_id)

    def heard(self, call_id: int, now: float) -> bool:
        """A call has brought something; False where it is over, or lost with its worker."""
        worker = self._where.get(call_id)
        if worker is None:
            return False
        self._benches[worker].running[call_id] = now
        return True

    def finish(self, call_id: int) -> None:
        """A call is over."""
        del self._benches[self._where.pop(call_id)].running[call_id]

    def assign(self, now: float) -> Iterator[tuple[int, Batch]]:
        """Give out what can be given now: a worker and its calls, until there is none or nobody."""
        while self._waiting:
            worker = self._freest()
            if worker is None:
                return
            bench = self._benches[worker]
            size = 1 if bench.capacity else self._batch_size
            batch = self._first(size)
            if len(batch) < size and self._may_grow(batch, now):
                return
            for call_id, _ in batch:
                del self._waiting[call_id]
                self._where[call_id] = worker
                bench.running[call_id] = now
            yield worker, batch

    def next_assignment(self, now: float) -> float | None:
        """Seconds until `assign` may give out a batch that is not full; None for never."""
        if not self._waiting or self._batch_size == 1 or self._freest() is None:
            return None
        return max(0.0, self._oldest() + self._max_delay - now)

    def silent(self, timeout: float, now: float) -> list[int]:
        """The running calls that have brought nothing for longer than `timeout`."""
        return [
            call_id
            for bench in self._benches.values()
            for call_id, heard in bench.running.items()
            if now - heard > timeout
        ]

    def _freest(self) -> int | None:
        free = [worker for worker, bench in self._benches.items() if bench.free > 0]
        return min(free, key=self.load, default=None)

    def _oldest(self) -> float:
        return next(iter(self._waiting.values()))[1]

    def _first(self, size: int) -> Batch:
        """The calls that may go together, the oldest first: at most `size`, of one function."""
        batch: Batch = []
        for call_id, (call, _) in self._waiting.items():
            if batch and (len(batch) == size or call.function != self._main):
                break
            batch.append((call_id, call))
            if call.function != self._main:
                break
        return batch

    def _may_grow(self, batch: Batch, now: float) -> bool:
        """Whether it is worth waiting for more: not once another function's call stands behind."""
        alone = batch[0][1].function != self._main or len(batch) < len(self._waiting)
        return not alone and now - self._oldest() < self._max_delay
