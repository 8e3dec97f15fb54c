"""The asynchronous service of vLLM for scripts that wrap it, over that engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

from lmi.custom.api.inputs import Input
from lmi.custom.api.outputs import Output
from lmi.custom.stock.engine_service import AsyncEngineService


class VLLMHandler(AsyncEngineService):
    """Requests run together."""

    rolling_batch = "vllm"


service = VLLMHandler()


async def handle(inputs: Input) -> Output | AsyncIterator[Output] | None:
    """Load the engine at the first call, and answer requests."""
    return await service.handle(inputs)
