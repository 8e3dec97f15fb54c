"""The memory that the ranks of one host share: made by rank 0, found by the others through /proc.

It has no name (memfd_create(2)), so nobody else can open it, /dev/shm may be as small as containers
make it, and nothing is left behind however the ranks end.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

TOKEN_BYTES: Final = 16  # as in native/ranks.h


@dataclass(frozen=True, slots=True)
class Address:
    """Where rank 0's segment is: its process, the file descriptor there, and its first bytes."""

    process: int
    descriptor: int
    token: bytes

    def pack(self) -> bytes:
        """For the other ranks."""
        numbers = self.process.to_bytes(8, "little") + self.descriptor.to_bytes(8, "little")
        return numbers + self.token

    @classmethod
    def unpack(cls, data: bytes) -> Address:
        """What rank 0 packed."""
        process, descriptor = (int.from_bytes(data[at : at + 8], "little") for at in (0, 8))
        return cls(process, descriptor, data[16:])


def create(size: int) -> Address:
    """A new segment of this many bytes, all zero. Raises OSError."""
    descriptor = os.memfd_create("lmi-ranks", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return Address(os.getpid(), descriptor, os.urandom(TOKEN_BYTES))


def adopt(address: Address) -> int:
    """A file descriptor of our own for rank 0's segment. Raises OSError."""
    return os.open(f"/proc/{address.process}/fd/{address.descriptor}", os.O_RDWR | os.O_CLOEXEC)


def reserve(descriptor: int, begin: int, size: int) -> None:
    """Make sure that these bytes can be written. Raises OSError; without it, a write could kill.

    Each rank reserves its own, so that they come from the memory near it.
    """
    os.posix_fallocate(descriptor, begin, size)
