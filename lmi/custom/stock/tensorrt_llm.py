"""The services of TensorRT-LLM for scripts that wrap them, over that engine where there is one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from lmi.custom.api.inputs import Input
from lmi.custom.api.outputs import Output
from lmi.custom.stock.engine_service import AsyncEngineService
from lmi.custom.stock.huggingface import HuggingFaceService


class TRTLLMService(HuggingFaceService):
    """Requests of one call run together, calls one after the other."""

    def initialize(self, properties: Mapping[str, Any]) -> None:
        """Load the engine. Raises LmiError."""
        super().initialize({**properties, "rolling_batch": "trtllm"})


class TensorRTLLMHandler(AsyncEngineService):
    """Requests run together."""

    rolling_batch = "trtllm"


_service = TRTLLMService()
_async_service = TensorRTLLMHandler()


def handle(inputs: Input) -> Output | list[Output] | None:
    """Load the model at the first call, and answer requests."""
    return _service.handle(inputs)


async def handle_async(inputs: Input) -> Output | AsyncIterator[Output] | None:
    """Load the engine at the first call, and answer requests."""
    return await _async_service.handle(inputs)
