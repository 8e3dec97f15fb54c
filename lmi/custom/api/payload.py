"""How handlers' values become bytes: the JSON of answers, and what counts as bytes."""

from __future__ import annotations

import datetime
import json
import sys
from typing import Any

Buffer = bytes | bytearray | memoryview


def encode_json(value: Any) -> bytes:
    """A value as JSON in UTF-8, without blanks and without escapes.

    Scalars and arrays of numpy, dates and times, and models of pydantic are converted; NaN and the
    infinities, which JSON does not have, raise ValueError; anything else TypeError.
    """
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_convert
    )
    return text.encode()


def _convert(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return str(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    # Not imported for this: only where a library is loaded can a value be one of its own.
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.generic):
            return value.item()
        if isinstance(value, numpy.ndarray):
            return value.tolist()
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"a value of type {type(value).__name__} has no form in JSON")
