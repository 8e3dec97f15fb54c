"""What the tests of the configuration share: the type of their fixture, and misspellings."""

from __future__ import annotations

import random
import string
from collections.abc import Collection, Mapping
from typing import Protocol

from lmi.config import Resolution

HERE = frozenset({"lmi-dist", "echo"})
ALL = frozenset({"lmi-dist", "vllm", "trtllm", "deepspeed", "python", "echo"})

_LETTERS = string.ascii_lowercase + "_"


class Resolved(Protocol):
    """Resolves a folder whose serving.properties is `text`."""

    def __call__(
        self,
        text: str = "",
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, str] | None = None,
        *,
        installed: Collection[str] = HERE,
        model_py: str | None = None,
    ) -> Resolution: ...


class Problems(Protocol):
    """The lines that resolving fails with; none where it succeeds."""

    def __call__(
        self,
        text: str = "",
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, str] | None = None,
        *,
        installed: Collection[str] = HERE,
        model_py: str | None = None,
    ) -> list[str]: ...


def misspelt(name: str, rng: random.Random) -> str:
    """`name` with one letter inserted, deleted, replaced, or swapped with its neighbour."""
    letters = _LETTERS.upper() if name.isupper() else _LETTERS
    while True:
        at = rng.randrange(len(name))
        match rng.choice(("insert", "delete", "replace", "swap")):
            case "insert":
                edited = name[:at] + rng.choice(letters) + name[at:]
            case "delete":
                edited = name[:at] + name[at + 1 :]
            case "replace":
                edited = name[:at] + rng.choice(letters) + name[at + 1 :]
            case _:
                edited = name[:at] + name[at : at + 2][::-1] + name[at + 2 :]
        if edited != name:
            return edited
