"""Real processes as ranks: forked from a server that has imported torch once for all of them."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

import torch

from lmi.core import EngineDead
from lmi.dist.collectives.base import Collective
from lmi.dist.collectives.choose import choose
from lmi.dist.config import DistConfig
from lmi.dist.place import Place

# For what ranks import on a busy host.
_SECONDS: Final = 240.0
Body = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """What a rank sends instead of a result when its body raised."""

    text: str


class Job:
    """Running ranks. pids: by rank."""

    def __init__(self, processes: list[Any], ends: list[Connection]) -> None:
        self._processes = processes
        self._ends = ends
        self.pids = [process.pid for process in processes]

    def said(self, rank: int) -> Any:
        """The next thing that a rank says, or an error text as `EngineDead: ..`; EOFError: none."""
        end = self._ends[rank]
        if not wait([end], _SECONDS):
            raise TimeoutError(f"rank {rank} says nothing")
        value = end.recv()
        if isinstance(value, Failure):
            raise AssertionError(f"rank {rank} failed:\n{value.text}")
        return value

    def results(self) -> list[Any]:
        """What every rank's body returned."""
        return [self.said(rank) for rank in range(len(self._ends))]

    def end(self) -> None:
        """Leave nothing behind."""
        for process in self._processes:
            if process.is_alive():
                process.kill()
            process.join(_SECONDS)
        for end in self._ends:
            end.close()


@contextmanager
def ranks(
    size: int,
    folder: Path,
    body: Body,
    *arguments: Any,
    custom: bool = True,
    timeout: float = 30.0,
    prepare: Callable[[int], None] | None = None,
    rendezvous: str | None = None,
) -> Iterator[Job]:
    """`size` processes that run body(collective, say, *arguments) each.

    body: a function of a module. say sends a value to the test; what body returns is said last.
    prepare: called with the rank before it meets the others.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    processes, ends = [], []
    config = DistConfig(folder, custom_all_reduce=custom, collective_timeout=timeout)
    for rank in range(size):
        ours, theirs = server.Pipe(duplex=False)
        place = Place(rank, size, rendezvous or f"file://{folder}/store")
        arguments_of_rank = (config, place, theirs, prepare, body, arguments)
        process = server.Process(target=_run, args=arguments_of_rank, daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        ends.append(ours)
    job = Job(processes, ends)
    try:
        yield job
    finally:
        job.end()


def _run(
    config: DistConfig,
    place: Place,
    end: Connection,
    prepare: Callable[[int], None] | None,
    body: Body,
    arguments: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    collective: Collective | None = None
    try:
        if prepare is not None:
            prepare(place.rank)
        collective = choose(config, place, torch.device("cpu"))
        end.send(body(collective, end.send, *arguments))
    except EngineDead as dead:
        end.send(f"EngineDead: {dead}")
    except BaseException:
        end.send(Failure(traceback.format_exc()))
        raise
    finally:
        if collective is not None:
            collective.close()
