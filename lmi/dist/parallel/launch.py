"""The ways to start the ranks of a job: by ourselves, by mpirun, or not at all (they are there).

Every way takes one socket per rank and sees to it that the rank gets it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Container, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from lmi.core import EngineDead
from lmi.dist.parallel.meeting import Meeting, launched_place

Process = subprocess.Popen[bytes]

# For mpirun and the ranks' Pythons to start on a cold disk.
_MPIRUN_SECONDS: Final = 120.0
# Between two looks at whether mpirun still lives while its ranks are awaited.
_LOOK_SECONDS: Final = 0.1
# A shell's and mpirun's way to say in an exit code that a signal killed the process.
_SIGNALLED: Final = 128
# For killed processes to go.
_KILL_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Member:
    """A rank's process. witness: the child of ours whose exit code tells how it ended, if any.

    own: whether that child is the rank itself.
    """

    pid: int
    witness: Process | None
    own: bool

    def wait(self, seconds: float) -> bool:
        """Wait for the witness to end; True if it has. Without one there is nothing to wait for."""
        return self.witness is None or _ended(self.witness, time.monotonic() + seconds)

    def end(self) -> str | None:
        """How it ended, for a person; None while that is not known."""
        code = None if self.witness is None else self.witness.poll()
        if code is None:
            return None
        if not self.own and code > _SIGNALLED:
            code = _SIGNALLED - code
        if code >= 0:
            return f"ended with exit code {code}"
        return f"was killed by {signal.Signals(-code).name}"

    def is_dead(self) -> bool:
        """Whether it has ended, though perhaps not all of it is given back yet."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True
        return stat[stat.rindex(")") + 2] in "ZX"  # the name in the brackets may hold anything

    def kill(self) -> None:
        """Kill it, unless it is gone."""
        if self.own and self.witness is not None:
            self.witness.kill()
        else:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Crew:
    """The processes of a job: its ranks in order, and mpirun where we started one."""

    members: tuple[Member, ...]
    mpirun: Process | None = None

    def kill_ranks(self, gone: Container[int] = ()) -> None:
        """Kill the ranks that are not gone; an mpirun notices, tidies up and ends by itself."""
        for rank, member in enumerate(self.members):
            if rank not in gone:
                member.kill()

    def kill(self) -> None:
        """Kill what is left of our own children."""
        for process in self._children:
            process.kill()

    def wait(self, seconds: float) -> bool:
        """Wait for the ends of all that are our children; True if they came."""
        until = time.monotonic() + seconds
        return all([_ended(process, until) for process in self._children])

    @property
    def _children(self) -> list[Process]:
        ranks = [m.witness for m in self.members if m.own and m.witness is not None]
        return ranks if self.mpirun is None else [*ranks, self.mpirun]


class Launcher(Protocol):
    """Brings the ranks of a job to life."""

    def launch(self, theirs: Sequence[socket.socket], environment: Mapping[str, str]) -> Crew:
        """Start a rank for each socket and hand it over; the caller's thread must outlive them.

        Raises OSError or EngineDead; no process is left then.
        """


class Spawn:
    """Ranks that are our children."""

    def launch(self, theirs: Sequence[socket.socket], environment: Mapping[str, str]) -> Crew:
        """See `Launcher`."""
        members: list[Member] = []
        try:
            for link in theirs:
                process = _spawn(link, environment)
                members.append(Member(process.pid, process, own=True))
        except OSError:
            _end(Crew(tuple(members)))
            raise
        return Crew(tuple(members))


class MpiRun:
    """Ranks that are children of Open MPI's mpirun, which is ours."""

    def launch(self, theirs: Sequence[socket.socket], environment: Mapping[str, str]) -> Crew:
        """See `Launcher`."""
        if shutil.which("mpirun", path=environment.get("PATH")) is None:
            raise EngineDead("there is no mpirun on the PATH: install Open MPI (openmpi-bin)")
        name = f"lmi-{os.getpid()}-{os.urandom(8).hex()}"
        with closing(Meeting(name, len(theirs))) as meeting:
            mpirun = self._start(name, len(theirs), environment)
            pids: dict[int, int] = {}
            try:
                _gather(meeting, dict(enumerate(theirs)), pids, mpirun)
            except EngineDead:
                _end(Crew(_joined(pids, mpirun), mpirun))
                raise
        return Crew(_joined(pids, mpirun), mpirun)

    def _start(self, name: str, size: int, environment: Mapping[str, str]) -> Process:
        return subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "lmi.ipc.tether", str(os.getpid())),
                *("mpirun", "-n", str(size), "--oversubscribe", "--bind-to", "none"),
                *(sys.executable, "-P", "-m", "lmi.dist.worker", "--join", name),
            ],
            # Open MPI refuses to run as root, as containers do, unless it is told twice.
            env={
                **environment,
                "OMPI_ALLOW_RUN_AS_ROOT": "1",
                "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=2,
            # What a terminal sends to its group would end mpirun at once; the front drains first.
            start_new_session=True,
        )


class Gather:
    """Ranks that a foreign launcher has started together with this process, which is its rank 0.

    Our rank 0 is a child nevertheless: this process is the front.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def launch(self, theirs: Sequence[socket.socket], environment: Mapping[str, str]) -> Crew:
        """See `Launcher`."""
        with closing(Meeting(self._name, len(theirs))) as meeting:
            process = _spawn(theirs[0], environment)
            first = Member(process.pid, process, own=True)
            pids: dict[int, int] = {}
            try:
                _gather(meeting, dict(list(enumerate(theirs))[1:]), pids, None)
            except EngineDead:
                _end(Crew((first, *_joined(pids, None))))
                raise
        return Crew((first, *_joined(pids, None)))


def launcher_for(size: int, mpirun: bool, environment: Mapping[str, str]) -> Launcher:
    """The way to start `size` ranks from a process with this environment.

    Where a launcher has started as many processes as there are ranks, those are the ranks.
    """
    place = launched_place(environment)
    if size > 1 and place is not None and place.size == size:
        return Gather(place.name)
    return MpiRun() if mpirun else Spawn()


def _spawn(link: socket.socket, environment: Mapping[str, str]) -> Process:
    fd = link.fileno()
    return subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "lmi.dist.worker"),
            *("--fd", str(fd), "--parent", str(os.getpid())),
        ],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=2,  # whatever a library prints belongs to the log
        pass_fds=(fd,),
    )


def _gather(
    meeting: Meeting,
    links: dict[int, socket.socket],
    pids: dict[int, int],
    mpirun: Process | None,
) -> None:
    """Hand out `links` to the ranks as they come, and note their process ids."""
    until = time.monotonic() + _MPIRUN_SECONDS
    while links:
        arrival = meeting.admit(links, _LOOK_SECONDS)
        if arrival is not None:
            rank, pids[rank] = arrival
            del links[rank]
            continue
        if mpirun is not None and mpirun.poll() is not None:
            raise EngineDead(
                f"mpirun ended with exit code {mpirun.returncode} before its ranks met"
            )
        if time.monotonic() > until:
            late = ", ".join(map(str, sorted(links)))
            raise EngineDead(f"rank {late} did not come within {_MPIRUN_SECONDS:g} s")


def _joined(pids: Mapping[int, int], mpirun: Process | None) -> tuple[Member, ...]:
    return tuple(Member(pids[rank], mpirun, own=False) for rank in sorted(pids))


def _ended(process: Process, until: float) -> bool:
    try:
        process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(crew: Crew) -> None:
    crew.kill_ranks()
    crew.kill()
    crew.wait(_KILL_SECONDS)
