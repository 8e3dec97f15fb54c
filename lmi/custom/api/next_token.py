"""What `Sequence.get_next_token` returns: four values, three to scripts from before LMI 0.32.

Up to LMI 0.31 the result was (token, first, last), since then (token, index, first, last), and
formatters of both ages unpack it in one statement. Which one it is stands in the caller's byte
code: the number of names that it unpacks to. So the result is a tuple of four that gives three
values to a statement that takes three apart. Only unpacking is adapted; an index, a slice, a
comparison see four values.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from lmi.custom.api.request_io import Token

_UNPACK: Final = dis.opmap["UNPACK_SEQUENCE"]
_OLD: Final = 3  # values, up to LMI 0.31


class _Four(NamedTuple):
    token: Token | None
    at: int
    first: bool
    last: bool


class NextToken(_Four):
    """token: None where there is none yet. at: its place in the sequence. first, last: whether
    it is the sequence's."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        caller = sys._getframe(1)
        code, at = caller.f_code.co_code, caller.f_lasti
        if code[at] == _UNPACK and code[at + 1] == _OLD:
            return iter((self.token, self.first, self.last))
        return super().__iter__()
