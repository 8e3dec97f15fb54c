"""Protobuf's text format, as far as Triton's config.pbtxt needs it: no schema, no protobuf.

    message  ::= { name [":"] value [","|";"] }
    value    ::= scalar | "{" message "}" | "<" message ">" | "[" value { "," value } "]"
    scalar   ::= string { string } | word

A word is anything without blanks and brackets, which covers numbers, enums and a template's
`${name}` that nobody filled. Source: protobuf.dev, "Text Format Language Specification".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<word>(?:\$\{[^}\n]*\}|[^\s{}\[\]<>:,;"'\#$])+)
      | (?P<mark>[{}\[\]<>:,;])""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}
_CLOSING: Final = {"{": "}", "<": ">"}
_DEEPEST: Final = 64
_END: Final = ""


@dataclass(frozen=True, slots=True)
class Message:
    """Fields in their order; a name may stand several times. Values: str, Message or a list."""

    fields: tuple[tuple[str, object], ...]

    def all(self, name: str) -> Iterator[object]:
        """Every value of a name; of a list each item."""
        for key, value in self.fields:
            if key == name:
                yield from value if isinstance(value, list) else (value,)

    def text(self, name: str) -> str | None:
        """The last scalar of a name: in protobuf a later one wins."""
        found = [value for value in self.all(name) if isinstance(value, str)]
        return found[-1] if found else None


def parse(text: str) -> Message:
    """The message. Raises ValueError that names the line."""
    return _Parser(text).message(_END, 0)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0  # where the look-ahead begins
        self._kind, self._token = "", ""
        self._next = 0
        self._advance()

    def message(self, closing: str, depth: int) -> Message:
        if depth > _DEEPEST:
            raise self._error("nested too deep")
        fields = []
        while self._token != closing:
            if self._kind != "word":
                raise self._error("expected a field's name")
            name = self._take()
            if self._is_mark(":"):
                self._take()
            elif not (self._is_mark("{") or self._is_mark("<")):
                raise self._error(f"expected a colon or a brace after {name}")
            fields.append((name, self._value(depth)))
            while self._is_mark(",") or self._is_mark(";"):
                self._take()
        return Message(tuple(fields))

    def _value(self, depth: int) -> object:
        if self._kind == "string":
            parts = []
            while self._kind == "string":
                parts.append(_unquoted(self._take()))
            return "".join(parts)
        if self._kind == "word":
            return self._take()
        if self._is_mark("{") or self._is_mark("<"):
            closing = _CLOSING[self._take()]
            found = self.message(closing, depth + 1)
            self._take()
            return found
        if self._is_mark("["):
            return self._list(depth)
        raise self._error("expected a value")

    def _list(self, depth: int) -> list[object]:
        if depth >= _DEEPEST:
            raise self._error("nested too deep")
        self._take()
        items: list[object] = []
        while not self._is_mark("]"):
            items.append(self._value(depth + 1))
            if self._is_mark(","):
                self._take()
            elif not self._is_mark("]"):
                raise self._error("expected a comma or the list's end")
        self._take()
        return items

    def _is_mark(self, mark: str) -> bool:
        return self._kind == "mark" and self._token == mark

    def _take(self) -> str:
        token = self._token
        self._advance()
        return token

    def _advance(self) -> None:
        while True:
            self._at = self._next
            if self._at == len(self._text):
                self._kind, self._token = "end", _END
                return
            match = _TOKEN.match(self._text, self._at)
            if match is None:
                raise self._error("unexpected character")
            self._next = match.end()
            kind = match.lastgroup or ""
            if kind != "blank":
                self._kind, self._token = kind, match.group()
                return

    def _error(self, what: str) -> ValueError:
        line = self._text.count("\n", 0, self._at) + 1
        return ValueError(f"line {line}: {what}")


def _unquoted(token: str) -> str:
    return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[1]), token[1:-1])
