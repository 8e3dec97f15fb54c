"""A step of a user's rolling batch as one answer, for handlers that run such a batch themselves."""

from __future__ import annotations

from typing import Any, Protocol

from lmi.custom.api.inputs import Input
from lmi.custom.api.outputs import Output
from lmi.custom.api.request import Request
from lmi.custom.api.rolling_batch import RollingBatch

_FAILED = 424


class Parsed(Protocol):
    """What was read of a step. batch: its parts in order. requests: of those that could be read,
    in order. errors: by place, of the others."""

    batch: list[Input]
    requests: list[Request]
    errors: dict[int, Any]


def rolling_batch_inference(
    parsed_input: Parsed, inputs: Input, outputs: Output, rolling_batch: RollingBatch
) -> Output:
    """Compute a step, and add a binary map for each of its parts to `outputs`.

    The property `reset_rollingbatch` makes the batch forget what it holds first.
    """
    if inputs.get_property("reset_rollingbatch"):
        rolling_batch.reset()
    results = iter(rolling_batch.inference(parsed_input.requests))
    for place, part in enumerate(parsed_input.batch):
        if place in parsed_input.errors:
            error = str(parsed_input.errors[place])
            step: dict[str, Any] = {"data": "", "last": True, "code": _FAILED, "error": error}
        else:
            step = dict(next(results))
            kind = step.pop("content_type", None)
            if kind is not None:
                outputs.add_property(f"batch_{place}_Content-Type", kind)
        if (request_id := part.get_property("requestId")) is not None:
            outputs.add_property(f"batch_{place}_requestId", request_id)
        outputs.add(Output.binary_encode(step), "data", place)
    return outputs
