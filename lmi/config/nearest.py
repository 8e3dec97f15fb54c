"""The nearest name to a misspelt one: Damerau-Levenshtein distance over the known names."""

from __future__ import annotations

from collections.abc import Iterable

# Beyond a third of its letters a name is another one, not a misspelt one.
_TOLERANCE = 3
_MOST_EDITS = 4


def distance(one: str, other: str, most: int) -> int:
    """Edits between two names, or `most + 1` where they are more than `most`.

    An edit inserts, deletes or replaces a letter, or swaps two neighbours.
    """
    if abs(len(one) - len(other)) > most:
        return most + 1
    before_last: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, before_last[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
        before_last, last = last, row
    return min(last[-1], most + 1)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is meant by `name`, or None where none is near. Case does not count.

    Of equally near names the first wins, so put the likelier ones first.
    """
    lowered = name.lower()
    best: str | None = None
    fewest = min(_MOST_EDITS, max(1, len(name) // _TOLERANCE)) + 1
    for candidate in known:
        edits = distance(lowered, candidate.lower(), fewest - 1)
        if edits < fewest:
            best, fewest = candidate, edits
            if edits == 0:
                break
    return best


def one_edit(name: str, known: Iterable[str]) -> str | None:
    """A known name that is exactly one edit away (or differs in case only), or None."""
    for candidate in known:
        if distance(name, candidate, 1) == 1 or (
            name != candidate and name.lower() == candidate.lower()
        ):
            return candidate
    return None
