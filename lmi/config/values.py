"""Merges what several layers say about one option, keeps what lost, and parses what won."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lmi.config.options import Option, spellings
from lmi.config.present import MASK
from lmi.config.resolution import Overridden
from lmi.config.sources import Candidate
from lmi.config.variables import Layer
from lmi.core import ConfigError

_COMMENT = re.compile(r"\s#")


@dataclass(frozen=True, slots=True)
class Value:
    """An option's winning value. value: parsed, or the text itself where `parsed` is false."""

    option: Option
    text: str
    value: object
    winner: Candidate
    overridden: tuple[Overridden, ...] = ()
    parsed: bool = True

    def error(self, want: str) -> ConfigError:
        """A ConfigError about this value; its text is shown unless it is a secret."""
        text = MASK if self.option.secret else self.text
        return ConfigError(self.winner.written, text, self.winner.origin, want)


Values = Mapping[str, Value]
"""By the option's documented key."""


def merge(
    candidates: Iterable[Candidate], *, own_code: bool
) -> tuple[dict[str, Value], dict[str, ConfigError]]:
    """The winning values, and an error for each that can't be parsed, both by documented key.

    own_code: the model's own code takes the options, so a text that only it reads need not parse.
    """
    said: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        said.setdefault(spellings()[candidate.key].key, []).append(candidate)
    values: dict[str, Value] = {}
    problems: dict[str, ConfigError] = {}
    for key, group in said.items():
        value = _merged(spellings()[key], group, own_code)
        if isinstance(value, Value):
            values[key] = value
        else:
            problems[key] = value
    return values, problems


def _merged(option: Option, group: Sequence[Candidate], own_code: bool) -> Value | ConfigError:
    ranked = sorted(group, key=lambda candidate: _rank(option, candidate))
    winner = ranked[0]
    text = winner.text.strip()
    overridden = tuple(Overridden(loser.text, loser.origin) for loser in ranked[1:])
    try:
        return Value(option, text, option.kind.parse(text), winner, overridden)
    except ValueError as error:
        value = Value(option, text, text, winner, overridden, parsed=False)
        if own_code and not option.ours_to_read:
            return value
        hint = "; a # inside a line starts no comment" if _COMMENT.search(text) else ""
        return value.error(f"{error}{hint}")


def _rank(option: Option, candidate: Candidate) -> tuple[int, bool, int]:
    """Sorts the winner first: by layer, by the documented spelling, by order within the layer."""
    layer = candidate.layer
    if option.server and layer is Layer.SERVING_DEFAULT:
        layer = Layer.SERVING
    return -layer, candidate.key != option.key, candidate.order


def get(values: Values, key: str) -> object:
    """The parsed value of an option, or None where it is unset."""
    return values[key].value if key in values else None


def text_of(values: Values, key: str) -> str | None:
    """The value of an option whose kind is text or a choice; None where it is unset."""
    value = get(values, key)
    return value if isinstance(value, str) else None
