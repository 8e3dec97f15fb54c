"""Which function of a module answers requests: `handle`, or the four functions of SageMaker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from lmi.core import ConfigError
from lmi.custom import sagemaker
from lmi.custom.loading import MODEL_FILE, load_module
from lmi.custom.signatures import check_takes, is_asynchronous, where

WANTED = "{name}(inputs: Input) -> Output, def or async def"


@dataclass(frozen=True, slots=True)
class Handler:
    """What answers requests. main: the function for a request that names no other."""

    module: ModuleType
    main: Callable[..., Any]
    name: str
    asynchronous: bool

    @property
    def described(self) -> str:
        """For people: the name, the file and the line."""
        return f"{self.name} ({where(self.main)})"

    def named(self, function: str) -> Callable[..., Any] | None:
        """The function that a request names; None where there is none."""
        if function == self.name:
            return self.main
        found = getattr(self.module, function, None)
        return found if callable(found) else None


def load_handler(folder: Path, entry_point: str | None, fallback: str | None, name: str) -> Handler:
    """The handler of a model.

    The entry point's, the folder's model.py where there is no entry point; where that has none
    (formatters only, say), that of `fallback`. Raises ConfigError or ModelError.
    """
    first = entry_point
    if first is None and (folder / MODEL_FILE).is_file():
        first = MODEL_FILE
    tried: list[str] = []
    for candidate in (first, fallback):
        if candidate is None:
            continue
        handler = find(load_module(folder, candidate), name)
        if handler is not None:
            return handler
        tried.append(candidate)
    if not tried:
        raise ConfigError(
            "option.entryPoint", None, str(folder), f"there is no {MODEL_FILE}, and nothing else"
        )
    raise ConfigError(
        name,
        None,
        ", ".join(tried),
        f"there is no such function; expected {WANTED.format(name=name)}, or {sagemaker.WANTED}",
    )


def find(module: ModuleType, name: str) -> Handler | None:
    """A module's handler, checked; None where it has none. Raises ConfigError."""
    function = getattr(module, name, None)
    if callable(function):
        check_takes(function, 1, WANTED.format(name=name))
        return Handler(module, function, name, is_asynchronous(function))
    script = sagemaker.find(module)
    if script is not None:
        return Handler(module, script.handle, name, asynchronous=False)
    return None
