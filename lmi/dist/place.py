"""Which rank of how many a process is. No torch here: fronts say it to their workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Place:
    """A rank's place in its job.

    rendezvous: where the ranks find each other, as torch.distributed writes it:
    `file:///folder/name` (a file that does not exist yet, in a folder of this job alone; the ranks
    are on one host then, and speak over its loopback) or `tcp://host:port` (rank 0 listens there).
    """

    rank: int
    size: int
    rendezvous: str

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.size}"


ALONE: Final = Place(0, 1, "")
