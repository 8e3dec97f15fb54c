"""A bursty engine: several tokens, and several deltas of one choice, in one poll.

Engines that decide several tokens in one step (speculative decoding) or that are polled late look
like this. The groups are drawn from a seeded generator.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from lmi.core import Delta
from lmi.engines.echo import EchoConfig
from tests.support.engines.wrapped import Wrapped

MOST_STEPS = 5  # of the echo engine in one poll


class BurstEngine(Wrapped):
    """Makes 1 to 5 steps in a poll and joins neighbouring deltas of a choice at random."""

    def __init__(self, config: EchoConfig, seed: int = 0) -> None:
        super().__init__(config)
        self._random = random.Random(seed)

    def poll(self, timeout: float, /) -> Sequence[Delta]:
        out = list(self.inner.poll(timeout))
        for _ in range(self._random.randrange(MOST_STEPS)):
            out += self.inner.poll(0)
        return self._regroup(out)

    def _regroup(self, deltas: Sequence[Delta]) -> list[Delta]:
        """Join some deltas with the one of the same choice before them; the order within a choice
        stays, that between choices does not."""
        groups: dict[tuple[int, int], list[Delta]] = {}
        for delta in deltas:
            group = groups.setdefault((delta.request_id, delta.choice), [])
            if group and self._random.random() < 0.5:
                group[-1] = joined(group[-1], delta)
            else:
                group.append(delta)
        choices = list(groups.values())
        self._random.shuffle(choices)
        return [delta for group in choices for delta in group]


def joined(first: Delta, second: Delta) -> Delta:
    """One delta that says what two of the same choice said."""
    return second._replace(tokens=first.tokens + second.tokens, prompt=first.prompt)
