"""Which adapter a request names: by header, query, or body."""

from __future__ import annotations

from collections.abc import Mapping

from lmi.schemas.errors import Voice, bad_payload
from lmi.schemas.serving import Serving

ADAPTER_HEADER = "x-amzn-sagemaker-adapter-identifier"


def adapter_of(
    voice: Voice,
    headers: Mapping[str, str],
    serving: Serving,
    named: str | list[str] | None,
    model: str | None,
) -> str | None:
    """The adapter's name, None for the model itself; whether it is registered is not looked at.

    The header wins over the query's `adapter`, that over the body's `adapters`. named: that field.
    model: the field `model`, which selects an adapter if it is the name of one. Raises BadPayload
    for several names.
    """
    if isinstance(named, list):
        if len(set(named)) > 1:
            raise bad_payload(voice, "adapters: expected one name.", "adapters")
        named = named[0] if named else None
    found = headers.get(ADAPTER_HEADER) or serving.adapter or named
    if found:
        return found
    return model if model in serving.adapters else None
