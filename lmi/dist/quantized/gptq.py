"""GPTQ checkpoints (Frantar et al., 2022), as auto-gptq and gptqmodel write them.

A layer is qweight (in * bits / 32, out), packed down its rows; qzeros (groups, out * bits / 32),
packed along them; scales (groups, out); and g_idx (in), the group of each input. Version 1 of the
format stores zero points less one, version 2 as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch

from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.quantized.bits import WORD, unpack_stream
from lmi.dist.quantized.exceptions import Exceptions
from lmi.dist.quantized.layer import Layer, canonical, group_count
from lmi.dist.quantized.settings import FOR_ONE_KERNEL, MARLIN, Settings

BITS: Final = (3, 4, 8)
# What is added to a stored zero point, by the names that the format's versions have.
_ZERO_OFFSETS: Final = {"gptq": 1, "gptq_v2": 0}


@dataclass(frozen=True, slots=True)
class GptqReader:
    """Reads the layers of one checkpoint.

    zero_offset: what a stored zero point lacks. ordered: whether groups follow the inputs'
    importance (act-order), which only g_idx can say. exceptions: layers with settings of their own.
    """

    bits: int
    group_size: int
    zero_offset: int
    ordered: bool = False
    exceptions: Exceptions = field(default_factory=Exceptions)

    @classmethod
    def of(cls, values: dict[str, Any], where: str) -> GptqReader:
        """From config.json's `quantization_config`. Raises ModelError for what it can't read."""
        settings = Settings(values, where)
        if values.get("is_marlin_format"):
            raise settings.refused("is_marlin_format", True, MARLIN)
        kind = values.get("checkpoint_format") or values.get("format") or "gptq"
        if kind in FOR_ONE_KERNEL:
            raise settings.refused("checkpoint_format", kind, FOR_ONE_KERNEL[kind])
        version = settings.one_of("checkpoint_format", kind, tuple(_ZERO_OFFSETS))
        settings.one_of("pack_dtype", "int32", ("int32",))
        return cls(
            settings.one_of("bits", None, BITS),
            settings.group_size("group_size"),
            _ZERO_OFFSETS[version],
            values.get("desc_act") is True,
            Exceptions.of(values.get("dynamic"), f"{where}: dynamic"),
        )

    @property
    def label(self) -> str:
        """For the start-up log."""
        return f"GPTQ, {self.bits} bits"

    def read(self, checkpoint: Checkpoint, name: str, /) -> LowBitWeight | None:
        """The layer `name`, whole; None where it is not quantised. Raises ModelError."""
        layer = Layer(checkpoint, name)
        if not layer.has("qweight"):
            return None
        own = self.exceptions.settings(name)
        if not own:
            return self._read(layer)
        return replace(
            self,
            bits=own.one_of("bits", self.bits, BITS),
            group_size=own.group_size("group_size", self.group_size),
            ordered=own.one_of("desc_act", self.ordered, (True, False)),
        )._read(layer)

    def _read(self, layer: Layer) -> LowBitWeight:
        packed = layer.take("qweight", dtype=torch.int32)
        if packed.dim() != 2 or packed.shape[0] * WORD % self.bits:
            raise layer.error(
                "qweight", f"has the shape {tuple(packed.shape)}: no whole {self.bits}-bit numbers"
            )
        inputs, outputs = packed.shape[0] * WORD // self.bits, packed.shape[1]
        groups = group_count(inputs, self.group_size)
        if self.ordered and groups > 1 and not layer.has("g_idx"):
            raise layer.error("g_idx", "is missing: with desc_act only it says an input's group")
        zero_words = outputs * self.bits // WORD
        stored = layer.take("qzeros", (groups, zero_words), dtype=torch.int32)
        zeros = unpack_stream(stored, self.bits).T.to(torch.int16) + self.zero_offset
        return canonical(
            self.bits,
            unpack_stream(packed.T, self.bits),
            layer.scales("scales", (groups, outputs)).T,
            # A zero point of 0, less one, was stored as the largest number.
            zeros & ((1 << self.bits) - 1),
            layer.groups("g_idx", inputs, groups, self._size(inputs)),
        )

    def _size(self, inputs: int) -> int:
        return inputs if self.group_size == -1 else self.group_size
