"""What a release of TensorRT-LLM takes and gives, from the table that was written down.

The table, `contract.json`, holds one entry per fact with the lines of releases that have it
(`since`, `until`), where it was read (`source`) and how sure that is (`certainty`). Nothing here
imports the library, and no other module knows a release by its number: who wants to know whether
a field exists asks here. `pytest -m trtllm_real` compares the table with an installed library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

_TABLE = Path(__file__).with_name("contract.json")

Certainty: TypeAlias = Literal["source", "third party", "inferred"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a class, as one release has it.

    kind: a class of the contract (`KvCacheConfig`), an enum (`QuantAlgo`), a union
        (`SpeculativeConfig`) or a plain kind: int, float, bool, str, path, list, dict, object.
    also: further kinds that it takes. items: the kind of a list's or dict's values, if known.
    optional: None is taken. required: there is no default. factory: the default is a new object
        of its kind; then `default` is None.
    least, most: the ends of the range of a number, None where there is none.
    """

    name: str
    kind: str
    also: tuple[str, ...]
    items: str | None
    optional: bool
    required: bool
    factory: bool
    default: Any
    choices: tuple[str, ...]
    least: float | None
    most: float | None
    since: str
    until: str | None
    source: str
    certainty: Certainty


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a call. required: it has no default."""

    name: str
    required: bool
    default: Any


@dataclass(frozen=True, slots=True)
class Made:
    """How a class is made: the module that has it, and by which of its two ways.

    by: `keywords` (the constructor), or `from_dict` (a class method that takes one dict).
    kind: pydantic, dataclass or plain. library_name: its name there.
    """

    module: str
    library_name: str
    kind: Literal["pydantic", "dataclass", "plain"]
    by: Literal["keywords", "from_dict"]


class Contract:
    """The facts of one line of releases.

    release: as asked for. line: the line that stands for it. known: whether that line was written
    down; for a release newer than all lines the newest stands in, for an older one the oldest.
    """

    def __init__(self, release: str) -> None:
        table = _table()
        asked = _order(release)
        lines = [_order(line) for line in table["lines"]]
        self.release = release
        self.known = asked in lines
        before = [line for line in lines if line <= asked]
        self._at = before[-1] if before else lines[0]
        self.line = ".".join(map(str, self._at))
        self._table = table

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that this line has."""
        return tuple(name for name, entry in self._table["classes"].items() if self._holds(entry))

    def fields(self, name: str) -> Mapping[str, Field]:
        """The fields of a class by name; those of its base classes come first.

        Raises KeyError for a class that this line does not have.
        """
        return self._fields(name)

    @cache  # noqa: B019 - the handful of contracts of a process live as long as it does
    def _fields(self, name: str) -> Mapping[str, Field]:
        entry = self._class(name)
        found: dict[str, Field] = {}
        for base in entry.get("bases", ()):
            found.update(self._fields(base))
        for field, spans in entry["fields"].items():
            for span in filter(self._holds, spans):
                found[field] = _field(field, span)
        return MappingProxyType(found)

    def made(self, name: str) -> Made:
        """How an object of the class is made. Raises KeyError for an unknown class."""
        entry = self._class(name)
        ways = [way["by"] for way in entry.get("construction", ()) if self._holds(way)]
        return Made(
            module=entry["module"],
            library_name=entry.get("library_name", name),
            kind=entry["made"],
            by=ways[0] if ways else "keywords",
        )

    def omitted(self, name: str) -> frozenset[str]:
        """Fields that the library's class has and that are of no use to us: never given."""
        entry = self._class(name)
        inherited = (self.omitted(base) for base in entry.get("bases", ()))
        return frozenset(entry.get("omitted", ())).union(*inherited)

    def backends(self, name: str) -> tuple[str, ...]:
        """The paths, `engine` and `pytorch`, that take a class of settings; both unless said."""
        return tuple(self._class(name).get("backends", ("engine", "pytorch")))

    def enum(self, name: str) -> tuple[str, ...]:
        """The values of an enum. Raises KeyError for an unknown one."""
        values: Iterable[Mapping[str, str]] = self._table["enums"][name]["values"]
        return tuple(entry["value"] for entry in values if self._holds(entry))

    def enum_module(self, name: str) -> str | None:
        """The module that has the enum's class; None where the library takes plain text."""
        module: str | None = self._table["enums"][name]["module"]
        return module

    def enums(self) -> tuple[str, ...]:
        """The names of the enums that this line has."""
        return tuple(name for name in self._table["enums"] if self.enum(name))

    def union(self, name: str) -> Mapping[str, str]:
        """The classes of a union by the word that tells them apart, such as `decoding_type`.

        That word is no field of the classes: it chooses one and is left out.
        """
        members: Mapping[str, str] = self._table["unions"][name]["members"]
        return MappingProxyType({word: of for word, of in members.items() if of in self.classes})

    def discriminator(self, name: str) -> str:
        """The key of a union's object that holds the word."""
        word: str = self._table["unions"][name]["discriminator"]
        return word

    def is_class(self, kind: str) -> bool:
        """Whether a field's kind is one of the classes of this line."""
        return kind in self.classes

    def is_enum(self, kind: str) -> bool:
        """Whether a field's kind is an enum."""
        return kind in self._table["enums"]

    def is_union(self, kind: str) -> bool:
        """Whether a field's kind is a union of classes."""
        return kind in self._table["unions"]

    def signature(self, call: str) -> tuple[Parameter, ...]:
        """The parameters of a call, such as `LLM.generate_async`, without self and keywords."""
        entry = self._table["calls"][call]
        return tuple(
            Parameter(each["name"], each.get("required", False), each.get("default"))
            for each in entry["parameters"]
            if self._holds(each)
        )

    def calls(self) -> tuple[str, ...]:
        """The calls that this line has."""
        return tuple(name for name, entry in self._table["calls"].items() if self._holds(entry))

    def members(self, name: str) -> tuple[str, ...]:
        """The members of an object that the library gives, such as `RequestOutput`."""
        return tuple(self._table["objects"][name]["members"])

    def environment(self) -> frozenset[str]:
        """The environment variables of the library that we set or read."""
        entries = self._table["environment"]
        return frozenset(name for name, entry in entries.items() if self._holds(entry))

    def error_module(self, name: str) -> str:
        """The module that has an error's class: `RequestError`, `CppExecutorError`."""
        module: str = self._table["errors"][name]["module"]
        return module

    def has(self, feature: str) -> bool:
        """Whether the line has a feature: `_tensorrt_engine`, `trtllm-llmapi-launch`, ..."""
        return self._holds(self._table["features"][feature])

    def _class(self, name: str) -> Mapping[str, Any]:
        entry: Mapping[str, Any] = self._table["classes"][name]
        if not self._holds(entry):
            raise KeyError(name)
        return entry

    def _holds(self, entry: Mapping[str, Any]) -> bool:
        since, until = entry.get("since"), entry.get("until")
        return (since is None or _order(since) <= self._at) and (
            until is None or self._at <= _order(until)
        )


@cache
def contract(release: str) -> Contract:
    """The contract of a release, `1.2.1` or `1.3.0rc5`. ValueError: text that is no release."""
    return Contract(release)


def last_line_with(feature: str) -> str | None:
    """The last line of releases that has a feature; None: the newest still has it."""
    until: str | None = _table()["features"][feature].get("until")
    return until


def lines() -> tuple[str, ...]:
    """The lines of releases that were written down, oldest first."""
    return tuple(_table()["lines"])


def _field(name: str, span: Mapping[str, Any]) -> Field:
    least, most = span.get("range", (None, None))
    return Field(
        name=name,
        kind=span["kind"],
        also=tuple(span.get("also", ())),
        items=span.get("items"),
        optional=span.get("optional", False),
        required=span.get("required", False),
        factory=span.get("factory", False),
        default=span.get("default"),
        choices=tuple(span.get("choices", ())),
        least=least,
        most=most,
        since=span["since"],
        until=span.get("until"),
        source=span["source"],
        certainty=span["certainty"],
    )


@cache
def _table() -> Mapping[str, Any]:
    document: Mapping[str, Any] = json.loads(_TABLE.read_text(encoding="ascii"))
    return document


@cache
def _order(release: str) -> tuple[int, int]:
    """The line of a release: 1.2 of 1.2.1, 1.2.0rc4 or 1.2.1+cu130."""
    match = re.match(r"(\d+)\.(\d+)", release)
    if match is None:
        raise ValueError(f"{release!r} is no release of TensorRT-LLM: expected such as 1.2.1")
    return int(match[1]), int(match[2])
