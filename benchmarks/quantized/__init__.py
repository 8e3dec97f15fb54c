"""The parts of `benchmarks.quantization`: models, rows, what each engine's process measures."""
