"""An engine for the benchmarks' harness, scripted: each answer counts on from its prompt's sum.

Run as a subject's process. options: ends_at: this many requests are taken, then the process ends;
stuck_at: then it has no news any more; short: every answer lacks an id.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from benchmarks.offline.loop import Ids, Piece
from benchmarks.offline.serve import Ready, Setting, serve


class Counting:
    """One id per request and step; the oldest max_batch requests run."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._live: dict[int, list[int]] = {}  # next id, and how many are left
        self._taken = 0

    def add(self, number: int, prompt: Ids, output: int) -> None:
        self._taken += 1
        if self._taken == self._setting.options.get("ends_at"):
            print("the last words", file=sys.stderr, flush=True)
            os._exit(3)
        self._live[number] = [sum(prompt), output - self._setting.options.get("short", 0)]

    def step(self) -> Sequence[Piece]:
        if self._taken >= self._setting.options.get("stuck_at", sys.maxsize):
            return ()
        pieces = []
        for number, state in list(self._live.items())[: self._setting.max_batch]:
            state[0] += 1
            state[1] -= 1
            pieces.append(Piece(number, (state[0],), state[1] == 0))
            if state[1] == 0:
                del self._live[number]
        return pieces


def load(setting: Setting) -> Ready:
    print("what a library prints")
    return Ready(Counting(setting), {"threads": str(setting.threads)})


if __name__ == "__main__":
    serve(load)
