"""Reads the collection of real configurations and the environments of platforms."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / "environments"


@dataclass(frozen=True, slots=True)
class Configuration:
    """One configuration that was found in use. `files` maps names in the model folder to texts."""

    name: str
    source: str
    version: str
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    has_model_py: bool = False

    @property
    def properties(self) -> str | None:
        """The text of serving.properties, or None where there is none."""
        return self.files.get("serving.properties")

    def __str__(self) -> str:
        return f"{self.version} {self.name}"

    def write(self, folder: Path) -> None:
        """Make `folder` the model folder of this configuration."""
        for name, text in self.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        if self.has_model_py:
            (folder / "model.py").write_text("def handle(inputs):\n    return None\n")


@dataclass(frozen=True, slots=True)
class Environment:
    """All variables that a platform sets in a container, none of which is the user's choice."""

    name: str
    platform: str
    variables: dict[str, str]


def configurations() -> tuple[Configuration, ...]:
    """The whole collection, in the order of its files."""
    found = []
    for path in sorted(HERE.glob("*.toml")):
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        shared = {"source": document["source"], "version": document["version"]}
        found += [Configuration(**(shared | case)) for case in document["case"]]
    return tuple(found)


def environments() -> tuple[Environment, ...]:
    """What containers find on the platforms, by name."""
    return tuple(
        Environment(path.stem, **json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(ENVIRONMENTS.glob("*.json"))
    )
