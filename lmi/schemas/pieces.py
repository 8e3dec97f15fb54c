"""Pieces of JSON, written by hand where a token would pay for a general encoder.

The bytes are those of Python's `json.dumps(..., ensure_ascii=False)` with its default separators,
which is what the reference's formatters use.
"""

from __future__ import annotations

import json
import math
from json.encoder import encode_basestring

text = encode_basestring
"""A JSON string, with quotes."""

_FLOOR = -9999.0  # JSON has no minus infinity; vLLM shows an impossible token's probability so


def number(value: float | None) -> str:
    """A log probability."""
    if value is None:
        return "null"
    return repr(value if math.isfinite(value) else _FLOOR)


def compose(value: object) -> str:
    """Any value: for what is written once per request."""
    return json.dumps(value, ensure_ascii=False)


def logprob(value: float | None) -> float | None:
    """A log probability that JSON can say."""
    return value if value is None or math.isfinite(value) else _FLOOR
