"""What was measured, row by row, in one JSON file that a later run goes on with."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Found:
    """A row's figures. why: what it failed with. rates: tokens per second of each repeat, by
    concurrency. ready: seconds from the process's start until it could take a request, its scores
    of the windows included."""

    model: str
    engine: str
    method: str
    bits: int
    linears: int
    why: str | None = None
    facts: dict[str, str] = field(default_factory=dict)
    rates: dict[str, list[float]] = field(default_factory=dict)
    ready: float = 0.0

    def done(self, concurrency: tuple[int, ...], repeats: int) -> bool:
        """Whether nothing is left to measure."""
        if self.why is not None:
            return True
        return all(len(self.rates.get(str(count), [])) >= repeats for count in concurrency)


@dataclass(slots=True)
class Results:
    """All rows. sessions: command, time and machine of each run."""

    sessions: list[dict[str, str]] = field(default_factory=list)
    rows: dict[str, Found] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None) -> Results:
        """Of an earlier run; nothing where there is no file."""
        if path is None or not path.exists():
            return cls()
        data: dict[str, Any] = json.loads(path.read_text())
        rows = {name: Found(**one) for name, one in data["rows"].items()}
        return cls(data["sessions"], rows)

    def write(self, path: Path | None) -> None:
        """In the place of an older file, whole or not at all."""
        if path is None:
            return
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self), indent=1) + "\n")
        part.rename(path)

    def session(self, command: str, facts: dict[str, str]) -> None:
        """A run begins."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.sessions.append({"command": command, "time": now, **facts})
