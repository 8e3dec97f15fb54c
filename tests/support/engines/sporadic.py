"""The base of engines that misbehave now and then."""

from __future__ import annotations

from lmi.engines.echo import EchoConfig
from tests.support.engines.wrapped import Faulty

EVERY = 7  # these engines misbehave once in so many chances, so that short tests meet it


class Sporadic(Faulty):
    """Misbehaves now and then."""

    def __init__(self, config: EchoConfig) -> None:
        super().__init__(config)
        self._chances = 0

    def now(self) -> bool:
        """Whether this chance is one to misbehave."""
        self._chances += 1
        return self._chances % EVERY == 0
