"""The options that a stock handler reads: text in, values out, errors by the option's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lmi.core import ConfigError

SOURCE: Final = "the model's options"

_TRUE: Final = frozenset({"true", "1", "yes", "on", "t", "y"})
_FALSE: Final = frozenset({"false", "0", "no", "off", "f", "n", ""})


def text(properties: Mapping[str, Any], name: str) -> str | None:
    """An option's text; None where it is unset or empty."""
    value = properties.get(name)
    return None if value is None or str(value).strip() == "" else str(value).strip()


def flag(properties: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """An option that is true or false. Raises ConfigError."""
    value = text(properties, name)
    if value is None:
        return default
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ConfigError(f"option.{name}", value, SOURCE, "expected true or false")


def whole(properties: Mapping[str, Any], name: str, default: int) -> int:
    """An option that is a whole number. Raises ConfigError."""
    value = text(properties, name)
    if value is None:
        return default
    try:
        return int(value)
    except ValueError:
        raise ConfigError(f"option.{name}", value, SOURCE, "expected a whole number") from None


def one_of(
    properties: Mapping[str, Any], name: str, choices: Sequence[str], default: str | None
) -> str | None:
    """An option that has one of some values. Raises ConfigError."""
    value = text(properties, name)
    if value is None:
        return default
    if value.lower() not in choices:
        raise ConfigError(f"option.{name}", value, SOURCE, f"expected one of {', '.join(choices)}")
    return value.lower()


def names(properties: Mapping[str, Any], name: str) -> list[str]:
    """An option that is a list separated by commas."""
    value = text(properties, name) or ""
    return [each.strip() for each in value.split(",") if each.strip()]
