"""The kinds of value an option may have: text becomes a value once, here.

A kind's `parse` raises ValueError whose text is the end of a sentence: what would be right.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

# The spellings that pydantic takes for a boolean, which is what the reference parses them with.
_TRUE = frozenset({"true", "1", "yes", "on", "t", "y"})
_FALSE = frozenset({"false", "0", "no", "off", "f", "n"})

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_BINARY_UNITS = {"ki": 1024, "mi": 1024**2, "gi": 1024**3, "ti": 1024**4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?", re.IGNORECASE | re.ASCII)
_TOKENS = re.compile(r"0*([1-9]\d{0,11})([kKmM])?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)


class Kind(Protocol):
    """How to read one option's text."""

    @property
    def label(self) -> str:
        """What may stand there, as a noun phrase: `a whole number from 1, or max`."""

    def parse(self, text: str, /) -> object:
        """The value, or ValueError."""


@dataclass(frozen=True, slots=True)
class Text:
    """Any text; `label` says what it means."""

    label: str = "text"

    def parse(self, text: str, /) -> str:
        return text


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean in pydantic's spellings."""

    label: str = "true or false"

    def parse(self, text: str, /) -> bool:
        word = text.lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
        raise ValueError(f"expected {self.label}")


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number between two bounds, or one of a few words."""

    least: int | None = None
    most: int | None = None
    words: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return _numeric("a whole number", self.least, self.most, self.words)

    def parse(self, text: str, /) -> int | str:
        word = text.lower()
        if word in self.words:
            return word
        if _WHOLE.fullmatch(text):
            value = int(text)
            if _within(value, self.least, self.most):
                return value
        raise ValueError(f"expected {self.label}")


@dataclass(frozen=True, slots=True)
class Real:
    """A finite number between two bounds, or one of a few words."""

    least: float | None = None
    most: float | None = None
    words: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return _numeric("a number", self.least, self.most, self.words)

    def parse(self, text: str, /) -> float | str:
        word = text.lower()
        if word in self.words:
            return word
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and _within(value, self.least, self.most):
            return value
        raise ValueError(f"expected {self.label}")


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words, in any case; the value is the listed spelling.

    synonyms: other spellings of a listed word. alternative: another kind that is accepted too.
    """

    words: tuple[str, ...]
    synonyms: tuple[tuple[str, str], ...] = ()
    alternative: Kind | None = None

    @property
    def label(self) -> str:
        words = "one of " + ", ".join(self.words)
        return words if self.alternative is None else f"{words}, or {self.alternative.label}"

    def parse(self, text: str, /) -> object:
        lowered = text.lower()
        for word in self.words:
            if word.lower() == lowered:
                return word
        for other, word in self.synonyms:
            if other.lower() == lowered:
                return word
        if self.alternative is not None:
            try:
                return self.alternative.parse(text)
            except ValueError:
                pass
        raise ValueError(f"expected {self.label}")


@dataclass(frozen=True, slots=True)
class Size:
    """An amount of memory: bytes, or a number with a unit (GB is 1000^3, GiB is 1024^3)."""

    label: str = "a number of bytes such as 2147483648, 2GB or 1.5GiB"

    def parse(self, text: str, /) -> int:
        match = _SIZE.fullmatch(text)
        if match is None or not math.isfinite(number := float(match[1])):
            raise ValueError(f"expected {self.label}")
        unit = (match[2] or "").lower()
        return int(number * (_BINARY_UNITS.get(unit) or _UNITS[unit]))


@dataclass(frozen=True, slots=True)
class Tokens:
    """A number of tokens, in vLLM's spellings: 16k is 16,000 and 16K is 16,384.

    0, -1 and auto are None: the engine decides.
    """

    label: str = "a whole number such as 4096, 4k (4000) or 4K (4096), or auto"

    def parse(self, text: str, /) -> int | None:
        if text.lower() in ("auto", "-1", "0"):
            return None
        match = _TOKENS.fullmatch(text)
        if match is None:
            raise ValueError(f"expected {self.label}")
        unit = {"": 1, "k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}[match[2] or ""]
        return int(match[1]) * unit


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON value; `shape` names the types that are accepted."""

    label: str = "a JSON value"
    shape: tuple[type, ...] = ()

    def parse(self, text: str, /) -> object:
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise ValueError(f"expected {self.label}") from None
        if self.shape and not isinstance(value, self.shape):
            raise ValueError(f"expected {self.label}")
        return value


@dataclass(frozen=True, slots=True)
class Names:
    """Words separated by commas; blanks around them don't count."""

    label: str = "names separated by commas"

    def parse(self, text: str, /) -> tuple[str, ...]:
        return tuple(word for part in text.split(",") if (word := part.strip()))


@dataclass(frozen=True, slots=True)
class Checked:
    """Text that a function reads: it gives the value or raises ValueError."""

    label: str
    read: Callable[[str], object]

    def parse(self, text: str, /) -> object:
        try:
            return self.read(text)
        except ValueError:
            raise ValueError(f"expected {self.label}") from None


def _no_constant(word: str) -> object:
    raise ValueError(f"{word} is no JSON")


def _within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _numeric(noun: str, least: float | None, most: float | None, words: tuple[str, ...]) -> str:
    if least is not None:
        noun = f"{noun} from {least}"
    if most is not None:
        noun = f"{noun} {'up ' if least is None else ''}to {most}"
    return noun if not words else f"{noun}, or {' or '.join(words)}"
