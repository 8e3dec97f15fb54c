"""BoundSpec: a ModelSpec once the model's files and the devices are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lmi.config.spec import ModelSpec

# Reports (phase, done, total) from any thread; a total of 0 means that the end is not known.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class BoundSpec:
    """What an engine is loaded from.

    path: the folder with the model's files, None for an engine that needs no model. artifacts:
    where what is made of a model (quantised weights) is kept between starts, None for nowhere.
    """

    spec: ModelSpec
    path: Path | None
    artifacts: Path | None = None
