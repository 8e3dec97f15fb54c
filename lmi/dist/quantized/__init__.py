"""Quantised checkpoints as their makers wrote them, read into `lmi.dist.kernels.low_bit`'s form.

Nothing is decompressed: what is 4 bits in the file stays 4 bits in the model's memory.

    formats.py    which reader a config.json asks for; what none can read is named
    compressed.py compressed-tensors: int-quantized (W8A8, W8A16), pack-quantized (3, 4 and 8 bits),
                  float-quantized (FP8)
    fp8.py        FP8: scales per tensor, output or block
    gptq.py       GPTQ: 3, 4 and 8 bits, act-order, both zero-point conventions
    awq.py        AWQ: 4 bits, layout "gemm"
    at_load.py    plain checkpoints whose layers become low-bit as they are read
    bits.py       small numbers out of 32-bit words
    layer.py      one layer's tensors, each checked as it is taken
"""

from lmi.dist.quantized.formats import reader_of

__all__ = ["reader_of"]
