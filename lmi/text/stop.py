"""Stop strings in a stream of text: found across any split, never leaked, in constant memory.

An Aho-Corasick automaton (Aho and Corasick, 1975) reads the text character by character. Its state
is the longest end of the text so far that is a beginning of a stop string: exactly what must be
held back. The match that ends first wins, the longest of those that end together, so the cut does
not depend on how the text was split.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from lmi.core import BadPayload

# One choice's automaton has a node per character: these keep it under a few megabytes and
# milliseconds.
MAX_STOPS: Final = 256
MAX_STOP_CHARS: Final = 4096


class StopStrings:
    """The automaton of a request's stop strings; frozen, shared by its choices.

    Raises BadPayload for an empty string and beyond MAX_STOPS strings or MAX_STOP_CHARS characters
    together.
    """

    __slots__ = ("depth", "fail", "match", "next", "starts")

    def __init__(self, stops: Sequence[str]) -> None:
        check_stops(stops)
        self.next: list[dict[str, int]] = [{}]  # node and character to the node one deeper
        self.fail: list[int] = [0]  # node to that of its longest proper end
        self.depth: list[int] = [0]  # characters of a node's string
        self.match: list[int] = [0]  # characters of the longest stop that ends here, 0 for none
        self.starts = frozenset([stop[0] for stop in stops])
        for stop in stops:
            self._insert(stop)
        self._link()

    def _insert(self, stop: str) -> None:
        node = 0
        for char in stop:
            child = self.next[node].get(char)
            if child is None:
                child = len(self.next)
                self.next[node][char] = child
                self.next.append({})
                self.fail.append(0)
                self.depth.append(self.depth[node] + 1)
                self.match.append(0)
            node = child
        self.match[node] = len(stop)

    def _link(self) -> None:
        queue = deque(self.next[0].values())
        while queue:
            node = queue.popleft()
            for char, child in self.next[node].items():
                self.fail[child] = self.step(self.fail[node], char)
                self.match[child] = self.match[child] or self.match[self.fail[child]]
                queue.append(child)

    def step(self, node: int, char: str) -> int:
        """The node after one more character."""
        while (child := self.next[node].get(char)) is None:
            if not node:
                return 0
            node = self.fail[node]
        return child


def check_stops(stops: Sequence[str]) -> None:
    """Raise BadPayload for stop strings that can't be served."""
    if len(stops) > MAX_STOPS:
        raise BadPayload(
            f"{len(stops)} stop strings: at most {MAX_STOPS} are possible", field="stop"
        )
    total = sum(map(len, stops))
    if total > MAX_STOP_CHARS:
        raise BadPayload(
            f"stop strings of {total} characters: at most {MAX_STOP_CHARS} together are possible",
            field="stop",
        )
    if "" in stops:
        raise BadPayload("an empty stop string: expected at least one character", field="stop")


class StopMatcher:
    """One choice's reader of stop strings.

    include: keep the stop itself in the text. Then nothing is held back: a text may be shown before
    the stop is whole.
    """

    __slots__ = ("_held", "_include", "_node", "_stops")

    def __init__(self, stops: StopStrings, *, include: bool = False) -> None:
        self._stops = stops
        self._include = include
        self._node = 0
        self._held = ""

    def push(self, text: str, /, *, armed: bool = True) -> tuple[str, bool]:
        """Read on; returns the text that may be shown, and whether a stop string ended.

        What follows a stop that ended is dropped.

        armed: False while a stop string may not end the text yet (a least number of tokens); one
        may still begin.
        """
        stops = self._stops
        node = self._node
        if not node and stops.starts.isdisjoint(text):
            return text, False
        for place, char in enumerate(text):
            node = stops.step(node, char)
            if stops.match[node] and armed:
                return self._cut(text[: place + 1], stops.match[node]), True
        self._node = node
        if self._include:
            return text, False
        known = self._held + text
        shown = len(known) - stops.depth[node]
        self._held = known[shown:]
        return known[:shown], False

    def _cut(self, text: str, stop_chars: int) -> str:
        known = self._held + text
        self._held = ""
        self._node = 0
        return known if self._include else known[: len(known) - stop_chars]

    def flush(self) -> str:
        """What was held back and became no stop string; call it once, at the end."""
        held = self._held
        self._held = ""
        self._node = 0
        return held
