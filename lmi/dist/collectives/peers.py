"""Whether the processes of the other ranks still live, read from Linux's /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from zlib import crc32

# Fields after the name in /proc/PID/stat (proc(5) counts from 1 and the state is number 3).
_STATE: Final = 0
_STARTED: Final = 19
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Peer:
    """A rank's process. started: in clock ticks since boot, so that a pid used anew is told apart.

    host: a number that two processes share if either sees the other in its /proc.
    """

    rank: int
    pid: int
    started: int
    host: int

    @classmethod
    def here(cls, rank: int) -> Peer:
        """This process."""
        return cls.of(rank, os.getpid())

    @classmethod
    def of(cls, rank: int, pid: int) -> Peer:
        """A process of this host, which must be there."""
        return cls(rank, pid, int(_stat(pid)[_STARTED]), _host())

    def fate(self) -> Literal["gone", "stopped"] | None:
        """What happened to it; None while it runs, or where it is out of sight."""
        if self.host != _host():
            return None
        try:
            fields = _stat(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return "gone"
        if int(fields[_STARTED]) != self.started or fields[_STATE] in "ZX":
            return "gone"
        return "stopped" if fields[_STATE] in "Tt" else None

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.pid})"


def _stat(pid: int) -> list[str]:
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 1 :].split()  # the name before it may hold anything


def _host() -> int:
    """31 bits of the boot's id and the PID namespace: containers of one host have their own."""
    return crc32(f"{_BOOT.read_text()}{os.readlink('/proc/self/ns/pid')}".encode()) >> 1
