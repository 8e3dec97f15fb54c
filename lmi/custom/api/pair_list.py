"""Pairs of key and value in order: the content of a request or an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class PairList:
    """An ordered list of pairs; keys may repeat, and may be None.

    keys: and as many values (ValueError otherwise); or pair_list: pairs; or pair_map: a mapping.
    """

    def __init__(
        self,
        keys: Sequence[str | None] | None = None,
        values: Sequence[Any] | None = None,
        pair_list: Sequence[tuple[str | None, Any]] | None = None,
        pair_map: Mapping[str, Any] | None = None,
    ) -> None:
        self.keys: list[str | None] = []
        self.values: list[Any] = []
        if keys or values:
            given = len(keys or ()), len(values or ())
            if given[0] != given[1]:
                raise ValueError(f"{given[0]} keys for {given[1]} values: expected as many")
            self.keys += keys or ()
            self.values += values or ()
            return
        for key, value in pair_list or (pair_map or {}).items():
            self.keys.append(key)
            self.values.append(value)

    def add(
        self,
        key: str | None = None,
        value: Any = None,
        index: int | None = None,
        pair: tuple[str | None, Any] | None = None,
    ) -> None:
        """Add a pair, at `index` or at the end. A value of None is ignored."""
        if pair is not None:
            key, value = pair
        if value is None:
            return
        at = len(self.keys) if index is None else index
        self.keys.insert(at, key)
        self.values.insert(at, value)

    def add_all(self, other: PairList | None) -> None:
        """Add all pairs of another list at the end."""
        if other is not None:
            self.keys.extend(other.keys)
            self.values.extend(other.values)

    def size(self) -> int:
        """How many pairs there are."""
        return len(self.keys)

    def is_empty(self) -> bool:
        """Whether there is no pair."""
        return not self.keys

    def get(self, key: str | None) -> Any:
        """The value of the first pair with this key, or None."""
        for each, value in zip(self.keys, self.values, strict=True):
            if each == key:
                return value
        return None

    def key_at(self, index: int) -> str | None:
        """The key at a place; raises IndexError."""
        return self.keys[index]

    def value_at(self, index: int) -> Any:
        """The value at a place; raises IndexError."""
        return self.values[index]

    def get_keys(self) -> list[str | None]:
        """All keys, in order."""
        return self.keys

    def get_values(self) -> list[Any]:
        """All values, in order."""
        return self.values
