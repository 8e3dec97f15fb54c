"""Settings for human eyes and for JSON: secrets masked."""

from __future__ import annotations

import re

from lmi.config.resolution import Setting

MASK = "***"
_SECRET = re.compile(
    r"(?:^|[._])(?:token|password|passwd|pass|secret|credentials?|api_?key)(?:$|_)", re.I
)


def looks_secret(name: str) -> bool:
    """Whether an option's or a variable's name says that its value is a secret."""
    return _SECRET.search(name) is not None


def is_secret(setting: Setting) -> bool:
    """Whether a value must not be shown: the table says so, or the option's name does."""
    return setting.secret or looks_secret(setting.key)


def masked(name: str, text: str) -> str:
    """The text of a setting that the table doesn't know, or a mask."""
    return MASK if looks_secret(name) else text


def shown(setting: Setting, text: str | None = None) -> str:
    """The setting's text, or another one of the same option, or a mask."""
    return MASK if is_secret(setting) else setting.text if text is None else text


def record(setting: Setting) -> dict[str, object]:
    """A setting as JSON, masked."""
    entry: dict[str, object] = {
        "option": setting.key,
        "value": shown(setting),
        "origin": setting.origin,
        "fate": str(setting.fate),
        "consumer": setting.consumer or None,
    }
    if setting.note:
        entry["note"] = setting.note
    if setting.overridden:
        entry["overridden"] = [
            {"value": shown(setting, loser.text), "origin": loser.origin}
            for loser in setting.overridden
        ]
    return entry
