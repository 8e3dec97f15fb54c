"""The rounds of a comparison: kept with those of earlier runs, one entry for each measurement."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

STREAMED: Final = "streamed"
WHOLE: Final = "whole"
MODES: Final = (STREAMED, WHOLE)


@dataclass(frozen=True, slots=True)
class Round:
    """One subject's turn. run and repeat: which turns were side by side."""

    model: str
    subject: str
    mode: str
    concurrency: int
    run: int
    repeat: int
    figures: dict[str, Any]

    @property
    def turn(self) -> tuple[int, int]:
        """The same for what was measured side by side."""
        return self.run, self.repeat


@dataclass(slots=True)
class Rounds:
    """All of a file. facts: of each run."""

    facts: list[dict[str, str]] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path | None) -> Rounds:
        """What a file holds; nothing where there is none."""
        if path is None or not path.exists():
            return cls()
        held = json.loads(path.read_text())
        return cls(held["facts"], [Round(**each) for each in held["rounds"]])

    def write(self, path: Path) -> None:
        held = {"facts": self.facts, "rounds": [asdict(each) for each in self.rounds]}
        path.write_text(json.dumps(held, indent=1) + "\n")

    def of(self, model: str, subject: str, mode: str, concurrency: int) -> list[Round]:
        """The rounds of one cell."""
        wanted = (model, subject, mode, concurrency)
        return [
            each
            for each in self.rounds
            if (each.model, each.subject, each.mode, each.concurrency) == wanted
        ]


def ratios(
    ours: Iterable[Round], peers: Iterable[Round], figure: Callable[[dict[str, Any]], float]
) -> list[float]:
    """Ours over the peer's, turn by turn; only turns that both took."""
    by_turn = {each.turn: figure(each.figures) for each in peers}
    return [
        figure(each.figures) / by_turn[each.turn]
        for each in ours
        if by_turn.get(each.turn, 0.0) > 0
    ]
