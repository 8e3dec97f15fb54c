"""The asynchronous handler of vLLM."""

from lmi.custom.stock.vllm import VLLMHandler, handle, service

__all__ = ["VLLMHandler", "handle", "service"]
