"""What a worker runs for: the launch gives it, the front calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from lmi.session import Served


class Host(Protocol):
    """Makes the model that one worker serves."""

    def check(self) -> None:
        """All that can be found wrong before anything is loaded; raises LmiError.

        Called before Java is told that the worker has started, which must be within 120 seconds:
        what fails here ends the worker, and Java says so in every mode.
        """

    async def initialise(self, properties: Mapping[str, str], /) -> Served | None:
        """Load the model and wait until it answers; raises LmiError.

        properties: Java's initialise map, names as they are written. None: a rank that serves
        nothing itself.
        """


@runtime_checkable
class AdapterFolders(Protocol):
    """A host that says where adapters may be read from; otherwise it is the model's folder."""

    def adapter_folders(self) -> Sequence[Path]:
        """The folders, absolute."""
