"""How the texts of two options about worker processes are read."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

EVERY_DEVICE: Final = "*"
PROCESSOR: Final = -1


def variables(text: str) -> MappingProxyType[str, str]:
    """Environment variables out of `k=v,k2=v2`; a value can't hold a comma. Raises ValueError."""
    found = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or not name.strip():
            raise ValueError(part)
        found[name.strip()] = value.strip()
    return MappingProxyType(found)


def devices(text: str) -> tuple[int, ...]:
    """Indices out of `0;1` or `gpu0;gpu1`; none for `*`, which means every device.

    -1 is the processor. Raises ValueError.
    """
    if text == EVERY_DEVICE:
        return ()
    found = tuple(
        PROCESSOR if part.strip() in ("cpu", "-1") else int(part.strip().removeprefix("gpu"))
        for part in text.split(";")
    )
    if min(found) < PROCESSOR:
        raise ValueError(text)
    return found
