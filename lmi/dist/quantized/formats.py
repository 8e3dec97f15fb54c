"""Which reader a checkpoint's configuration asks for; what none can read is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from lmi.core import ModelError
from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.quantized.awq import AwqReader
from lmi.dist.quantized.compressed import CompressedReader
from lmi.dist.quantized.fp8 import METHODS as FP8_METHODS
from lmi.dist.quantized.fp8 import Fp8Reader
from lmi.dist.quantized.gptq import GptqReader


class Reader(Protocol):
    """Reads the layers of one quantised checkpoint."""

    @property
    def label(self) -> str:
        """Method and bits, for the start-up log."""

    def read(self, checkpoint: Checkpoint, name: str, /) -> LowBitWeight | None:
        """The layer `name` (without ".weight"), whole; None where it is not quantised.

        Raises ModelError, naming file and tensor, for what is missing, misshapen or not finite.
        """


_READERS: Final[dict[str, Callable[[dict[str, Any], str], Reader]]] = {
    "compressed-tensors": CompressedReader.of,
    "gptq": GptqReader.of,
    "awq": AwqReader.of,
    **dict.fromkeys(FP8_METHODS, Fp8Reader.of),
}
METHODS: Final = frozenset(_READERS)
"""Values of quant_method that are read here."""


def reader_of(quantization: dict[str, Any], where: str) -> Reader:
    """The reader for config.json's `quantization_config`. where: what messages call that.

    Raises ModelError, with what can be read, for a method, format or setting that is not known.
    """
    method = quantization.get("quant_method")
    make = _READERS.get(method) if isinstance(method, str) else None
    if make is None:
        raise ModelError(
            f"{where}: quant_method {method!r} is not known to LMI-Dist's own decoder: expected "
            "compressed-tensors (int-quantized, pack-quantized, float-quantized), gptq (3, 4 or 8 "
            f"bits), awq or FP8 ({', '.join(FP8_METHODS)})"
        )
    return make(quantization, where)
