"""Java properties text: read as `java.util.Properties` reads it, written so that it reads back.

The rules are those of `Properties.load(Reader)` in Java 17, its corners included, and change only
when Java's do: the tests compare the two on tens of thousands of texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lmi.core import ConfigError

_BLANKS = " \t\f"
_NATURAL_LINE = re.compile(r"([^\r\n]*)(\r\n|\r|\n|\Z)")
# An unescaped `=`, `:` or blank ends the key; blanks may stand on both sides of one `=` or `:`.
_ASSIGNMENT = re.compile(r"((?:[^\\=: \t\f]|\\.)*)[ \t\f]*[=:]?[ \t\f]*(.*)", re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}

_SPECIAL_IN_KEY = re.compile(r"[^!-~]|[\\=:]|\A[#!]")
_SPECIAL_IN_VALUE = re.compile(r"[^ -~]|\\|\A ")
_CONTROL_ESCAPES = {control: f"\\{letter}" for letter, control in _CONTROLS.items()}


@dataclass(frozen=True, slots=True)
class Property:
    """One assignment. line: where its logical line begins, counted from 1."""

    key: str
    value: str
    line: int


def parse(text: str, *, source: str = "properties") -> tuple[Property, ...]:
    r"""Every assignment, in file order. A key that stands twice comes twice; Java keeps the last.

    `source` names the text in errors. Raises ConfigError for a `\u` without four hexadecimal
    digits, the only text that Java refuses.
    """
    found = []
    for line, content in _logical_lines(text):
        assignment = _ASSIGNMENT.fullmatch(content)
        assert assignment is not None, "the pattern matches every text"
        key, value = assignment.groups()
        try:
            found.append(Property(_unescape(key), _unescape(value), line))
        except _MalformedEscape:
            want = r"expected four hexadecimal digits after \u (a backslash itself is written \\)"
            raise ConfigError(key, value, f"{source}:{line}", want) from None
    return tuple(found)


def load(path: Path) -> tuple[Property, ...]:
    r"""The assignments of a file, as `parse` gives them.

    The file is UTF-8 (a byte order mark is dropped), or ISO-8859-1 where its bytes are not UTF-8:
    what its author's editor showed. The DJL server reads each file twice, as ISO-8859-1
    (`ModelInfo`, which wins) and as strict UTF-8 (`BaseModelLoader`); only ASCII, with `\uXXXX` for
    the rest, means the same to both and here.

    Raises ConfigError for a file that can't be read and, naming file and line, for malformed text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        want = f"expected a readable file: {error.strerror}"
        raise ConfigError(path.name, None, str(path), want) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("iso-8859-1")
    return parse(text, source=path.name)


def render(mapping: Mapping[str, str]) -> str:
    """ASCII properties text, a line for each entry, that `parse` reads back to the same entries.

    As in Java, a surrogate pair held as two characters comes back as the one it stands for.
    """
    return "".join(
        f"{_SPECIAL_IN_KEY.sub(_escape, key)}={_SPECIAL_IN_VALUE.sub(_escape, value)}\n"
        for key, value in mapping.items()
    )


class _MalformedEscape(ValueError):
    r"""A `\u` without its four digits."""


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """(number of its first line, content) of each line that assigns, continuations joined."""
    content = ""
    first = 0
    for number, natural in enumerate(_NATURAL_LINE.finditer(text), start=1):
        piece = natural.group(1).lstrip(_BLANKS)
        if not content:
            first = number
            if not piece or piece[0] in "#!":
                continue
        backslashes = len(piece) - len(piece.rstrip("\\"))
        if backslashes % 2 == 0:
            content += piece
        else:
            content += piece[:-1]
            # A continuation at the end of the text ends its line, even an empty one (an empty key
            # in Java), unless CR LF ends it: then Java still waits for the rest.
            if natural.end() < len(text) or natural.group(2) == "\r\n":
                continue
        yield first, content
        content = ""


def _unescape(text: str) -> str:
    if "\\" in text:
        text = _ESCAPE.sub(_unescaped, text)
    if _SURROGATE.search(text):
        # Java's strings are UTF-16: two escaped halves are one character.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return text


def _unescaped(escape: re.Match[str]) -> str:
    code = escape.group(1)
    if code == "u":
        raise _MalformedEscape
    if len(code) == 5:
        return chr(int(code[1:], 16))
    return _CONTROLS.get(code, code)


def _escape(special: re.Match[str]) -> str:
    character = special.group()
    if " " <= character <= "~":
        return f"\\{character}"
    if character in _CONTROL_ESCAPES:
        return _CONTROL_ESCAPES[character]
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
