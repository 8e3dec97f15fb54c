"""FP8 checkpoints (e4m3) whose config.json names one scheme for all layers.

    fp8         scales of blocks (DeepSeek, transformers' FineGrainedFP8), of a tensor or of an
                output (AutoFP8)
    fbgemm_fp8  a scale per output (Meta's Llama)
    modelopt    a scale per tensor, or per output (TensorRT Model Optimizer)

A layer is weight (out, in) float8_e4m3fn and its scales: weight_scale, or weight_scale_inv, which
despite its name is what the weight is multiplied by.

Where such a checkpoint's rows are FP8 too, they keep their precision: nothing here multiplies FP8. A scale that the checkpoint holds
for its rows (static) is checked, but each row gets one of its own, which is at least as exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import torch

from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.dist.float8 import FLOAT8, holds_nan
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.quantized.layer import Layer
from lmi.dist.quantized.settings import Settings

WIDENED: Final = "widened block by block as it is used"
"""What becomes of FP8 numbers, whose products no kernel here computes, for the start-up log."""

TENSOR: Final = "tensor"
CHANNEL: Final = "channel"
Block = tuple[int, int]
Shared = str | Block | None

# By safetensors' names of dtypes.
_STORED: Final = "F8_E4M3"

# Where each format's tools keep the weight's scales, and those of rows where these are static.
_WEIGHT_SCALES: Final = ("weight_scale_inv", "weight_scale")
_ROW_SCALES: Final = ("input_scale", "activation_scale")

_MODEL_OPT: Final = ("FP8", "FP8_PER_CHANNEL_PER_TOKEN")


@dataclass(frozen=True, slots=True)
class Fp8Scheme:
    """What shares a scale, and what is done with the rows.

    shared: "tensor", "channel" (an output) or a block's (outputs, inputs); None where the format
    leaves tensor or channel to the shape of the scales. rounds_rows: the checkpoint was made for
    rows in FP8.
    """

    shared: Shared
    rounds_rows: bool


@dataclass(frozen=True, slots=True)
class Fp8Reader:
    """Reads the layers of one checkpoint."""

    method: str
    scheme: Fp8Scheme

    @classmethod
    def of(cls, values: dict[str, Any], where: str) -> Fp8Reader:
        """From config.json's `quantization_config`. Raises ModelError for what it can't read."""
        settings = Settings(values, where)
        method = settings.one_of("quant_method", None, tuple(_SCHEMES))
        return cls(method, _SCHEMES[method](values, settings))

    @property
    def label(self) -> str:
        """For the start-up log."""
        return f"{self.method} (FP8, {label(self.scheme)}; {WIDENED})"

    def read(self, checkpoint: Checkpoint, name: str, /) -> LowBitWeight | None:
        """The layer `name`, whole; None where it is not quantised. Raises ModelError."""
        layer = Layer(checkpoint, name)
        return read_fp8(layer, self.scheme) if holds_fp8(layer, checkpoint) else None


def holds_fp8(layer: Layer, checkpoint: Checkpoint) -> bool:
    """Whether the layer's weight is in e4m3. Raises ModelError for the other 8-bit format."""
    if not layer.has("weight"):
        return False
    stored = checkpoint.dtype_name(f"{layer.name}.weight")
    if stored.startswith("F8_") and stored != _STORED:
        raise layer.error("weight", f"is {stored}: of the FP8 formats only {_STORED} is known")
    return stored == _STORED


def read_fp8(layer: Layer, scheme: Fp8Scheme) -> LowBitWeight:
    """A layer that `holds_fp8`, whole. Raises ModelError, naming file and tensor."""
    values = layer.take("weight", dtype=FLOAT8)
    if values.dim() != 2:
        raise layer.error("weight", f"has the shape {tuple(values.shape)}: expected two sizes")
    if holds_nan(values):
        raise layer.error("weight", "holds a number that is not finite")
    for suffix in _ROW_SCALES:
        if layer.has(suffix):
            layer.finite(suffix)
    scales, group = _scales(layer, scheme.shared, values.shape[0], values.shape[1])
    rounds = 8 if scheme.rounds_rows else None
    return LowBitWeight(8, values, scales, group=group, activation_bits=rounds)


def label(scheme: Fp8Scheme) -> str:
    """How a scheme's scales are shared, in words."""
    if isinstance(scheme.shared, tuple):
        return f"a scale per block of {scheme.shared[0]}x{scheme.shared[1]}"
    return f"a scale per {scheme.shared or 'tensor or output'}"


def _scales(
    layer: Layer, shared: Shared, outputs: int, inputs: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(outputs, groups) and, where the groups are no equal runs, the group of each input."""
    suffix = next((name for name in _WEIGHT_SCALES if layer.has(name)), _WEIGHT_SCALES[-1])
    found = layer.finite(suffix)
    sizes = tuple(found.shape)
    if isinstance(shared, tuple):
        height, width = shared
        want = (ceil(outputs / height), ceil(inputs / width))
        if sizes != want:
            raise layer.error(suffix, f"has the shape {sizes}, expected {want}")
        spread = found.repeat_interleave(height, dim=0)[:outputs].contiguous()
        index = torch.arange(inputs) // width
        regular = torch.equal(index, torch.arange(inputs) // (inputs // want[1]))
        return spread, None if regular else index
    expected = {TENSOR: ((), (1,), (1, 1)), CHANNEL: ((outputs,), (outputs, 1))}
    allowed = expected[TENSOR] + expected[CHANNEL] if shared is None else expected[shared]
    if sizes not in allowed:
        want_one = " or ".join(map(str, allowed))
        raise layer.error(suffix, f"has the shape {sizes}, expected {want_one}")
    return found.reshape(-1, 1).expand(outputs, 1).contiguous(), None


def _fp8(values: dict[str, Any], settings: Settings) -> Fp8Scheme:
    settings.one_of("activation_scheme", "dynamic", ("dynamic", "static"))
    settings.one_of("fmt", "e4m3", ("e4m3",))
    block = values.get("weight_block_size")
    return Fp8Scheme(None if block is None else block_of(block, settings), rounds_rows=True)


def block_of(sizes: object, settings: Settings) -> Block:
    """A block's (outputs, inputs). Raises ModelError."""
    if (
        isinstance(sizes, list | tuple)
        and len(sizes) == len(("outputs", "inputs"))
        and all(type(size) is int and size > 0 for size in sizes)
    ):
        return sizes[0], sizes[1]
    raise settings.error("the size of a block of weights", sizes, "two whole numbers from 1")


def _fbgemm(values: dict[str, Any], settings: Settings) -> Fp8Scheme:
    del (
        values,
        settings,
    )  # it has one layout, and its bound of the rows' scales is for rounding them
    return Fp8Scheme(CHANNEL, rounds_rows=True)


def _model_opt(values: dict[str, Any], settings: Settings) -> Fp8Scheme:
    del values
    settings.one_of("quant_algo", None, _MODEL_OPT)
    return Fp8Scheme(None, rounds_rows=True)


_SCHEMES: Final[dict[str, Callable[[dict[str, Any], Settings], Fp8Scheme]]] = {
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm,
    "modelopt": _model_opt,
}
METHODS: Final = tuple(_SCHEMES)
"""The values of `quant_method` that `Fp8Reader` reads."""
