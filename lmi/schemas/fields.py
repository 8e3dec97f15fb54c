"""Types of fields that the dialects share, and the bounds that hold for all of them.

Types are strict: a text is not a number and `true` is not 1. A `null` counts as absent, as it does
in the reference.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

MAX_NEW_TOKENS = 2**31 - 1  # token counts travel as 32-bit numbers
MAX_SEED = 2**63 - 1  # seeds travel as signed 64-bit numbers
MAX_STOPS = 1024  # matching costs time for every token of every request in the batch
MAX_STOP_LENGTH = 1024  # characters; so much text is held back while a stop may be forming
MAX_CHOICES = 128  # each choice occupies a place in the batch
MAX_TOP_TOKENS = 20  # each one is sorted, decoded and sent for every token
MAX_INPUTS = 1024  # each input is a request of its own
MAX_BIASES = 4096  # each one is applied for every token
MAX_BAD_WORDS = 1024  # each one is compared for every token

CONFIG = ConfigDict(extra="allow", frozen=True, protected_namespaces=())
"""Fields that no model names are kept in `model_extra` and reported by the caller."""


def _text_as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _digits_as_number(value: object) -> object:
    # The reference reads a seed with int(), and Java's own seeds arrive as text.
    if isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isdecimal():
        return int(value)
    return value


Count = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Text = Annotated[str, Field(strict=True)]
FullText = Annotated[str, Field(strict=True, min_length=1)]
TokenId = Annotated[int, Field(strict=True, ge=0, le=MAX_NEW_TOKENS)]
Seed = Annotated[Count, Field(ge=-MAX_SEED - 1, le=MAX_SEED), BeforeValidator(_digits_as_number)]
Penalty = Annotated[Number, Field(ge=-2, le=2)]

_Stop = Annotated[str, Field(strict=True, min_length=1, max_length=MAX_STOP_LENGTH)]
_TEXTS = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
)
Stops = Annotated[list[_Stop], Field(max_length=MAX_STOPS), BeforeValidator(_text_as_list), _TEXTS]
BadWords = Annotated[
    list[_Stop], Field(max_length=MAX_BAD_WORDS), BeforeValidator(_text_as_list), _TEXTS
]
TokenIds = Annotated[list[TokenId], Field(max_length=MAX_BIASES)]
LogitBias = Annotated[
    dict[Annotated[str, Field(pattern=r"^\d{1,10}$")], Annotated[Number, Field(ge=-100, le=100)]],
    Field(max_length=MAX_BIASES),
]
