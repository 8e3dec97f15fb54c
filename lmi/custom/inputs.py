"""Requests as the `Input` that a handler gets: one, a batch of them, or the initialise call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lmi.custom.api.inputs import Input
from lmi.custom.messages import Request


def make_input(
    properties: Mapping[str, Any],
    content: Iterable[tuple[str | None, bytes]],
    function: str,
) -> Input:
    """One `Input`. Its values are bytearrays, as users' code expects."""
    inputs = Input()
    inputs.function_name = function
    inputs.properties = dict(properties)
    for key, value in content:
        inputs.content.add(key=key, value=bytearray(value))
    return inputs


def single(request: Request, own: Mapping[str, Any]) -> Input:
    """A request on its own. own: properties of the model, under those of the request."""
    named = {"handler": request.function}
    return make_input({**own, **named, **request.properties}, request.content, request.function)


def batch(requests: Sequence[Request], own: Mapping[str, Any]) -> Input:
    """Several as one: names of properties and content carry `batch_000.`, `batch_001.` and so on.

    `Input.get_batches` takes it apart again.
    """
    function = requests[0].function
    properties: dict[str, Any] = {**own, "handler": function, "batch_size": str(len(requests))}
    content: list[tuple[str | None, bytes]] = []
    for index, request in enumerate(requests):
        prefix = f"batch_{index:03d}."
        for name, value in request.properties.items():
            properties[prefix + name] = value
        for key, data in request.content:
            content.append((prefix + (key or "data"), data))
    return make_input(properties, content, function)
