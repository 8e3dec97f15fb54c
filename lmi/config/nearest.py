"""The nearest name to a misspelt one: Damerau-Levenshtein distance over the known names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# Beyond a third of its letters a name is another one, not a misspelt one.
_TOLERANCE = 3
_MOST_EDITS = 4


def distance(one: str, other: str, most: int) -> int:
    """Edits between two names, or `most + 1` where they are more than `most`.

    An edit inserts, deletes or replaces a letter, or swaps two neighbours.
    """
    if abs(len(one) - len(other)) > most:
        return most + 1
    shared = 0  # a common beginning costs nothing, and most keys begin alike
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        shared += 1
    one, other = one[shared:], other[shared:]
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


class Names:
    """Known names, likelier ones first, ready for many questions.

    Two names are one edit apart only if they, or forms of them that lack one letter, are equal. So
    each name is kept under all those forms, and a question about one edit is a few look-ups.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(dict.fromkeys(names))
        self._by_form: dict[str, list[int]] = {}
        for index, name in enumerate(self._names):
            for form in _forms(name.lower()):
                self._by_form.setdefault(form, []).append(index)

    def one_edit(self, name: str) -> str | None:
        """A known name that is one edit away, or differs in case only; None where none is."""
        for known in self._around(name):
            same_letters = name != known and name.lower() == known.lower()
            if same_letters or distance(name, known, 1) == 1:
                return known
        return None

    def nearest(self, name: str) -> str | None:
        """The known name that is meant by `name`, or None where none is near.

        Case does not count. Of equally near names the first wins.
        """
        lowered = name.lower()
        around = [(distance(lowered, known.lower(), 1), known) for known in self._around(name)]
        for edits in (0, 1):
            for found, known in around:
                if found == edits:
                    return known
        best: str | None = None
        fewest = min(_MOST_EDITS, max(1, len(name) // _TOLERANCE)) + 1
        for known in self._names:
            edits = distance(lowered, known.lower(), fewest - 1)
            if edits < fewest:
                best, fewest = known, edits
        return best

    def _around(self, name: str) -> Iterator[str]:
        """The names that may be one edit away, and no other than a few; likelier ones first."""
        found = {index for form in _forms(name.lower()) for index in self._by_form.get(form, ())}
        return (self._names[index] for index in sorted(found))


def _forms(name: str) -> set[str]:
    return {name, *(name[:at] + name[at + 1 :] for at in range(len(name)))}
