"""The asynchronous handler of TensorRT-LLM."""
