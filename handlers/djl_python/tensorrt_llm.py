"""The rolling-batch handler of TensorRT-LLM."""

from lmi.custom.stock.tensorrt_llm import TRTLLMService, handle

__all__ = ["TRTLLMService", "handle"]
