"""Settings that differ from layer to layer: gptqmodel's `dynamic`.

An object whose keys are regular expressions for layers' names, the first that matches counts. "-:"
before one says that such layers are not quantised; else, with or without "+:", its value holds
the settings that are other than the checkpoint's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lmi.core import ModelError
from lmi.dist.quantized.settings import Settings


@dataclass(frozen=True, slots=True)
class Exceptions:
    """rules: (pattern, settings) in their order; None for layers that are not quantised."""

    rules: tuple[tuple[re.Pattern[str], Settings | None], ...] = ()

    @classmethod
    def of(cls, dynamic: object, where: str) -> Exceptions:
        """Raises ModelError for what is no such object. where: what messages call it."""
        if not dynamic:
            return cls()
        if not isinstance(dynamic, dict):
            raise ModelError(f"{where} is {dynamic!r}: expected patterns and their settings")
        return cls(tuple(_rule(key, values, where) for key, values in dynamic.items()))

    def settings(self, name: str) -> Settings | None:
        """Of the layer `name`; None where the checkpoint's hold."""
        return next((own for pattern, own in self.rules if pattern.match(name)), None)


def _rule(key: str, values: Any, where: str) -> tuple[re.Pattern[str], Settings | None]:
    try:
        pattern = re.compile(key.removeprefix("-:").removeprefix("+:"))
    except re.error as error:
        raise ModelError(f"{where}: {key!r} is no regular expression: {error}") from error
    if key.startswith("-:"):
        return pattern, None
    if not isinstance(values, dict):
        raise ModelError(f"{where}: {key!r} is {values!r}: expected an object of settings")
    return pattern, Settings(values, f"{where}: {key!r}")
