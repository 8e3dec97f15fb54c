"""The asynchronous handler of TensorRT-LLM."""

from lmi.custom.stock.tensorrt_llm import TensorRTLLMHandler, handle_async

__all__ = ["TensorRTLLMHandler", "handle"]

handle = handle_async
