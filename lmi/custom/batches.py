"""The answer to a batch, taken apart into the answers of its requests."""

from __future__ import annotations

import re
from typing import Any, Final

from lmi.custom.answers import Stream, Whole, interpret
from lmi.custom.api.outputs import Output

_KEY: Final = re.compile(r"batch_(\d+)[._](.*)", re.DOTALL)
_FIRST_ERROR: Final = 300  # from this status on, an answer is the same for all


def split(result: Any, size: int) -> list[Whole]:
    """An answer for each of `size` requests, in order.

    The items of an Output are told apart by their keys, `batch_<index>.data`; status, reason and
    headers are shared, and one that failed is the answer of all. A list of as many results is
    taken one by one. Raises TypeError for anything else: nothing says whose it is.
    """
    if isinstance(result, list | tuple) and len(result) == size:
        return [_whole(each) for each in result]
    if not isinstance(result, Output):
        raise TypeError(
            f"a batch of {size} requests was answered with {_kind(result)}; expected an Output "
            f"with an item for each (add(value, batch_index=i)) or a list of {size} results"
        )
    whole = _whole(result)
    if whole.head.status >= _FIRST_ERROR:
        return [whole] * size
    bodies = _bodies(result, size)
    return [
        Whole(whole.head, bodies[index], whole.after if index == size - 1 else None)
        for index in range(size)
    ]


def _bodies(output: Output, size: int) -> list[bytes]:
    content = output.content
    found: dict[int, dict[str, bytes]] = {}
    for position, key in enumerate(content.get_keys()):
        match = _KEY.fullmatch(key or "")
        if match is not None:
            value = content.value_at(position)
            data = value.encode() if isinstance(value, str) else bytes(value)
            found.setdefault(int(match[1]), {})[match[2]] = data
    if sorted(found) != list(range(size)):
        shown = ", ".join(str(key) for key in content.get_keys()) or "no items"
        raise TypeError(
            f"a batch of {size} requests was answered with {shown}; expected an item for each of "
            f"batch_0 to batch_{size - 1}"
        )
    return [items.get("data", next(iter(items.values()))) for _, items in sorted(found.items())]


def _whole(result: Any) -> Whole:
    answer = interpret(result)
    if isinstance(answer, Stream):
        raise TypeError(
            "a batch of requests can't be answered with a stream; set batch_size=1 for a handler "
            "that streams"
        )
    return answer


def _kind(result: Any) -> str:
    if isinstance(result, list | tuple):
        return f"a list of {len(result)} results"
    return type(result).__name__


def shared(answer: Whole, size: int) -> list[Whole]:
    """One answer, an error mostly, for all."""
    return [Whole(answer.head, answer.body) for _ in range(size)]
