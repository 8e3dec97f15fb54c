"""AWQ checkpoints (Lin et al., 2023) in the layout "gemm", as autoawq and gptqmodel write them.

A layer is qweight (in, out / 8), qzeros (groups, out / 8) and scales (groups, out). The eight 4-bit
numbers of a word stand in an order that suited one GPU kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch

from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.quantized.bits import WORD, unpack_words
from lmi.dist.quantized.layer import Layer, canonical, group_count
from lmi.dist.quantized.settings import FOR_ONE_KERNEL, Settings

BITS: Final = 4
# Where in a word the outputs 0 to 7 stand.
_PLACES: Final = (0, 4, 1, 5, 2, 6, 3, 7)


@dataclass(frozen=True, slots=True)
class AwqReader:
    """Reads the layers of one checkpoint."""

    group_size: int

    @classmethod
    def of(cls, values: dict[str, Any], where: str) -> AwqReader:
        """From config.json's `quantization_config`. Raises ModelError for what it can't read."""
        settings = Settings(values, where)
        settings.one_of("bits" if "bits" in values else "w_bit", None, (BITS,))
        name = "version" if "version" in values else "checkpoint_format"
        version = str(values.get(name) or "gemm").lower()
        if version in FOR_ONE_KERNEL:
            raise settings.refused(name, version, FOR_ONE_KERNEL[version])
        if version != "gemm":
            raise settings.error(name, version, "gemm")
        return cls(settings.group_size("group_size" if "group_size" in values else "q_group_size"))

    @property
    def label(self) -> str:
        """For the start-up log."""
        return f"AWQ, {BITS} bits"

    def read(self, checkpoint: Checkpoint, name: str, /) -> LowBitWeight | None:
        """The layer `name`, whole; None where it is not quantised. Raises ModelError."""
        layer = Layer(checkpoint, name)
        if not layer.has("qweight"):
            return None
        packed = layer.take("qweight", dtype=torch.int32)
        if packed.dim() != 2:
            raise layer.error("qweight", f"has the shape {tuple(packed.shape)}: expected two sizes")
        inputs, words = packed.shape
        outputs = words * WORD // BITS
        groups = group_count(inputs, self.group_size)
        size = inputs if self.group_size == -1 else self.group_size
        zeros = layer.take("qzeros", (groups, words), dtype=torch.int32)
        return canonical(
            BITS,
            _in_order(packed).T,
            layer.scales("scales", (groups, outputs)).T,
            _in_order(zeros).T,
            layer.groups("g_idx", inputs, groups, size),
        )


def _in_order(packed: torch.Tensor) -> torch.Tensor:
    """(rows, words) int32 -> (rows, outputs) uint8."""
    unpacked = unpack_words(packed, BITS).unflatten(1, (-1, len(_PLACES)))
    return unpacked[:, :, list(_PLACES)].flatten(1)
