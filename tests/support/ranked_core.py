"""The scripted core as ranks of a job: they meet over sockets, and step together.

`ranks` in `script.json` adds to the script of one rank: {"ranks": {"1": {"die_at_step": 5}}}.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lmi.core import EngineDead
from lmi.dist.config import DistConfig
from lmi.dist.messages import CoreEvent
from lmi.dist.parallel.following import Follower
from lmi.dist.parallel.leading import LeadingCore
from lmi.dist.place import Place
from tests.support.scripted_core import ScriptedCore, fail_to_load

CORE: Final = "tests.support.ranked_core:load"
MEETING_SECONDS: Final = 30.0
LENGTH: Final = 4


class SocketLine:
    """A `Line` of a socket from rank 0 to each follower; a rank that is gone or silent is named."""

    def __init__(self, place: Place, timeout: float) -> None:
        path = Path(place.rendezvous.removeprefix("file://"))
        self._others: dict[int, socket.socket] = {}
        if place.rank == 0:
            with socket.socket(socket.AF_UNIX) as door:
                door.bind(str(path.with_suffix(".new")))
                door.listen(place.size)
                path.with_suffix(".new").rename(path)
                while len(self._others) < place.size - 1:
                    link, _ = door.accept()
                    self._others[link.recv(1)[0]] = link
        else:
            until = time.monotonic() + MEETING_SECONDS
            while not path.exists():
                assert time.monotonic() < until
                time.sleep(0.005)
            link = socket.socket(socket.AF_UNIX)
            link.connect(str(path))
            link.send(bytes([place.rank]))
            self._others[0] = link
        self._rank = place.rank
        self._timeout = timeout

    def broadcast(self, data: bytes | None) -> bytes:
        if data is not None:
            for rank in self._others:
                self._tell(rank, len(data).to_bytes(LENGTH, "big") + data)
            return data
        return self._hear(0, int.from_bytes(self._hear(0, LENGTH), "big"))

    def meet(self, seconds: float) -> None:
        """Wait until all ranks are here."""
        self._timeout, usual = seconds, self._timeout
        self.step()
        self._timeout = usual

    def step(self) -> None:
        """What the sums of a forward pass do: nobody goes on before all are here."""
        if self._rank == 0:
            for rank in sorted(self._others):
                self._hear(rank, 1)
            for rank in self._others:
                self._tell(rank, b".")
        else:
            self._tell(0, b".")
            self._hear(0, 1, patience=2)  # it knows who is missing, and is to say it first

    def close(self) -> None:
        for link in self._others.values():
            link.close()

    def _tell(self, rank: int, data: bytes) -> None:
        try:
            self._others[rank].sendall(data)
        except OSError as error:
            raise EngineDead(f"rank {rank} is gone") from error

    def _hear(self, rank: int, size: int, patience: int = 1) -> bytes:
        self._others[rank].settimeout(self._timeout * patience)
        data = b""
        while len(data) < size:
            try:
                part = self._others[rank].recv(size - len(data))
            except TimeoutError:
                raise EngineDead(f"rank {rank} is silent for {self._timeout:g} s") from None
            except OSError as error:
                raise EngineDead(f"rank {rank} is gone") from error
            if not part:
                raise EngineDead(f"rank {rank} is gone")
            data += part
        return data


class RankedCore(ScriptedCore):
    """A scripted core that steps when all ranks do."""

    def __init__(
        self, config: DistConfig, progress: Callable[[str, int, int], None], place: Place
    ) -> None:
        super().__init__(config, progress)
        own = self._script.get("ranks", {}).get(str(place.rank), {})
        self._script = {**self._script, **own}
        fail_to_load(own.get("load"), config)
        self.line = SocketLine(place, config.collective_timeout)
        self.line.meet(MEETING_SECONDS)

    def step(self) -> list[CoreEvent]:
        events = super().step()
        self.line.step()
        return events


def load(
    config: DistConfig, progress: Callable[[str, int, int], None], place: Place
) -> LeadingCore | Follower:
    core = RankedCore(config, progress, place)
    return LeadingCore(core, core.line) if place.rank == 0 else Follower(core, core.line)
