"""The asynchronous handler of vLLM."""
