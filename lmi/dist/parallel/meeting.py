"""How ranks that a launcher started find the front: under a name, on this host.

The name is one of Linux's abstract sockets: it leaves no file, and vanishes with the front. A rank
says which it is; the front answers with the descriptor of the socket that they will speak over.
Each side makes sure that the other is of the same user.

A launcher tells its processes their ranks in the environment, and what names their meeting where
the front has not started them itself. Open MPI's mpirun: OMPI_COMM_WORLD_RANK and _SIZE, and the
number of its job. torchrun and the `deepspeed` launcher: RANK, WORLD_SIZE and LOCAL_RANK, with
LOCAL_WORLD_SIZE or LOCAL_SIZE, and MASTER_ADDR and MASTER_PORT, which no other job here has.
Cluster managers set some of these too: it takes all of them, and all ranks on one host.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lmi.core import EngineDead

# The front may first have to fetch the model: ranks that wait for it die with their mpirun.
JOIN_SECONDS: Final = 3600.0
_RETRY_SECONDS: Final = 0.05
_ANSWER_SECONDS: Final = 10.0
_HELLO: Final = struct.Struct("!II")  # rank, size
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid: unix(7)


@dataclass(frozen=True, slots=True)
class LaunchedPlace:
    """What a launcher tells a process of its place. name: of the meeting of this job."""

    rank: int
    size: int
    name: str


def launched_place(environment: Mapping[str, str]) -> LaunchedPlace | None:
    """The place that a launcher gave this process, None where none did."""
    return _mpi_place(environment) or _torch_place(environment)


def _mpi_place(environment: Mapping[str, str]) -> LaunchedPlace | None:
    try:
        rank, size = (int(environment[f"OMPI_COMM_WORLD_{what}"]) for what in ("RANK", "SIZE"))
    except (KeyError, ValueError):
        return None
    job = environment.get("PMIX_NAMESPACE") or environment.get("OMPI_MCA_ess_base_jobid", "0")
    return LaunchedPlace(rank, size, f"lmi-{os.getuid()}-{job}")


def _torch_place(environment: Mapping[str, str]) -> LaunchedPlace | None:
    local = environment.get("LOCAL_WORLD_SIZE") or environment.get("LOCAL_SIZE", "")
    try:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        here = (int(environment["LOCAL_RANK"]), int(local))
        master = (environment["MASTER_ADDR"], environment["MASTER_PORT"])
    except (KeyError, ValueError):
        return None
    if here != (rank, size):  # ranks on several hosts don't meet under a name of one
        return None
    return LaunchedPlace(rank, size, f"lmi-{os.getuid()}-{master[0]}-{master[1]}")


def join(name: str, environment: Mapping[str, str], seconds: float = JOIN_SECONDS) -> socket.socket:
    """Meet the front under this name as the rank that the launcher says; returns the link to it.

    Raises EngineDead when it is not there after `seconds`.
    """
    place = launched_place(environment)
    if place is None:
        raise EngineDead(
            "this process was not started by mpirun, torchrun or deepspeed: it has no rank"
        )
    until = time.monotonic() + seconds
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            try:
                door.connect(_address(name))
            except ConnectionRefusedError:  # not there yet
                pass
            else:
                return _introduce(door, place)
        if time.monotonic() > until:
            raise EngineDead(f"rank {place.rank}: no front came to {name} in {seconds:g} s")
        time.sleep(_RETRY_SECONDS)


def _introduce(door: socket.socket, place: LaunchedPlace) -> socket.socket:
    if peer(door).uid != os.getuid():
        raise EngineDead("the front that answered belongs to another user")
    door.settimeout(_ANSWER_SECONDS)
    door.send(_HELLO.pack(place.rank, place.size))
    _, descriptors, _, _ = socket.recv_fds(door, 1, 1)
    if not descriptors:
        raise EngineDead(f"the front does not want rank {place.rank} of {place.size}")
    link = socket.socket(fileno=descriptors[0])
    link.set_inheritable(False)
    return link


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of a local socket, as the kernel knows it."""

    pid: int
    uid: int


def peer(link: socket.socket) -> Peer:
    """Who connected, or who listens."""
    size = _CREDENTIALS.size
    pid, uid, _ = _CREDENTIALS.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return Peer(pid, uid)


class Meeting:
    """The front's side: the place where the ranks come."""

    def __init__(self, name: str, size: int) -> None:
        """Raises OSError where the name is taken."""
        self._size = size
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.bind(_address(name))
            self._socket.listen(size)
        except OSError:
            self._socket.close()
            raise

    def admit(self, links: Mapping[int, socket.socket], seconds: float) -> tuple[int, int] | None:
        """Wait for one of the ranks in `links`, and give it its link; returns rank and pid.

        None when nobody came in time, or somebody whom we don't want.
        """
        self._socket.settimeout(seconds)
        try:
            door, _ = self._socket.accept()
        except TimeoutError:
            return None
        with door:
            guest = peer(door)
            if guest.uid != os.getuid():
                return None
            door.settimeout(_ANSWER_SECONDS)
            try:
                rank, size = _HELLO.unpack(door.recv(_HELLO.size))
                if size != self._size or rank not in links:
                    return None
                socket.send_fds(door, [b"!"], [links[rank].fileno()])
            except (OSError, struct.error):  # it went away, or does not speak our language
                return None
        return rank, guest.pid

    def close(self) -> None:
        """Nobody can come any more."""
        self._socket.close()


def _address(name: str) -> str:
    return f"\0{name}"
