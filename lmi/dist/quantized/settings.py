"""Values of config.json's `quantization_config`, each checked as it is taken."""

from __future__ import annotations

from typing import Any, TypeVar

from lmi.core import ModelError

T = TypeVar("T", int, str)


class Settings:
    """One object of the configuration. where: what the messages call it."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self._values = values
        self._where = where

    def one_of(self, name: str, default: T | None, allowed: tuple[T, ...]) -> T:
        """A setting that must be one of these; unset it is `default`. Raises ModelError."""
        value = self._values.get(name, default)
        if isinstance(value, bool) or value not in allowed:
            raise self.error(name, value, " or ".join(map(str, allowed)))
        found: T = value
        return found

    def group_size(self, name: str) -> int:
        """Inputs that share a scale; -1 for all of them. Raises ModelError."""
        value = self._values.get(name, -1)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not (value == -1 or value > 0):
            raise self.error(name, value, "a whole number from 1, or -1 for all inputs")
        found: int = value
        return found

    def error(self, name: str, value: object, want: str) -> ModelError:
        """What is wrong with a setting, and what LMI-Dist's own decoder reads instead."""
        return ModelError(
            f"{self._where}: {name} {value!r} is not known to LMI-Dist's own decoder: "
            f"expected {want}"
        )
