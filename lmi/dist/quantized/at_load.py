"""The layers of a plain checkpoint, quantised one by one as they are read.

To the nearest, with a scale per output and without calibration, so that a layer's share of a tensor
parallel model is a cut of the same numbers. The rows keep their precision: weights of 8 bits alone
halve the memory that a decode step waits for, and cost a tenth of the accuracy that rounding the
rows too would cost (activations have outliers, weights have none).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch

from lmi.core import ModelError
from lmi.dist.config import DistConfig
from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.dist.float8 import LARGEST, narrow
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.quantized.fp8 import WIDENED

_LARGEST_INT8: Final = 127.0
# An output whose weights are all 0 has no scale of its own: any will do.
_SMALLEST_SCALE: Final = torch.finfo(torch.float32).tiny


def to_int8(weight: torch.Tensor) -> LowBitWeight:
    """weight (out, in), finite, as whole numbers from -127 to 127."""
    wide = weight.float()
    scales = _scales(wide, _LARGEST_INT8)
    return LowBitWeight(8, (wide / scales).round_().to(torch.int8), scales)


def to_float8(weight: torch.Tensor) -> LowBitWeight:
    """weight (out, in), finite, as e4m3 numbers."""
    wide = weight.float()
    scales = _scales(wide, LARGEST)
    return LowBitWeight(8, narrow(wide / scales), scales)


def _scales(wide: torch.Tensor, largest: float) -> torch.Tensor:
    """(out, 1): what makes each output's largest weight the largest number."""
    return (wide.abs().amax(dim=1, keepdim=True) / largest).clamp_min_(_SMALLEST_SCALE)


@dataclass(frozen=True, slots=True)
class AtLoadReader:
    """See `lmi.dist.quantized.formats.Reader`; every layer that it is asked for is quantised.

    quantise: of a whole finite weight.
    """

    label: str
    quantise: Callable[[torch.Tensor], LowBitWeight]

    def read(
        self, checkpoint: Checkpoint, name: str, /, *, transposed: bool = False
    ) -> LowBitWeight:
        """The layer `name`, whole. transposed: the file has it as (in, out). Raises ModelError
        where it is missing or not finite."""
        tensor = f"{name}.weight"
        weight = checkpoint.take(tensor)
        where = f"{checkpoint.where(tensor)}: {tensor}"
        if weight.dim() != 2 or not weight.is_floating_point():
            raise ModelError(
                f"{where} is {weight.dtype} of the shape {tuple(weight.shape)}: only a plain "
                "matrix can be quantised at load"
            )
        found = self.quantise(weight.T if transposed else weight)
        if not torch.isfinite(found.scales).all():
            raise ModelError(f"{where} holds a number that is not finite")
        return found


_READERS: Final = {
    "int8": AtLoadReader("INT8 weights, rounded at load", to_int8),
    "fp8": AtLoadReader(f"FP8 weights, rounded at load, {WIDENED}", to_float8),
}
OWN: Final = tuple(_READERS)
"""The values of `DistConfig.quantize` that are done here; the others are libraries'."""


def at_load_reader(config: DistConfig) -> AtLoadReader | None:
    """What quantises a plain checkpoint's layers as the configuration asks; None for nothing of
    ours."""
    return _READERS.get(config.quantize)
