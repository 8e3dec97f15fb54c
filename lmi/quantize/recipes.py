"""GPTQ and AWQ over a decoder layer: the tensors of its file, and what each linear loses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any, Final, Protocol

import torch

from lmi.core import BuildError
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.quantized.bits import WORD
from lmi.quantize import awq, fold
from lmi.quantize.gptq import gptq
from lmi.quantize.grid import Grid
from lmi.quantize.inputs import groups_of, moments_of, output_error
from lmi.quantize.pack import awq_tensors, gptq_tensors
from lmi.quantize.settings import GROUP_SIZES, ActOrder, Settings
from lmi.quantize.skeleton import DecoderLayer

QUANTIZER: Final = "lmi"


@dataclass(frozen=True, slots=True)
class RoundedLayer:
    """tensors: what replaces or joins the layer's tensors, by names within the layer; where a
    linear has no `weight` among them, its own is gone. errors: of each linear's outputs, by its
    name, as `lmi.quantize.inputs.output_error` says."""

    tensors: dict[str, torch.Tensor]
    errors: dict[str, float]

    def add(self, name: str, tensors: dict[str, torch.Tensor], error: float) -> None:
        """A linear's tensors, by their suffixes."""
        self.tensors.update({f"{name}.{suffix}": tensor for suffix, tensor in tensors.items()})
        self.errors[name] = error


class Recipe(Protocol):
    """One method with its settings."""

    @property
    def label(self) -> str:
        """For people."""

    def config(self, ignored: Sequence[str]) -> dict[str, Any]:
        """config.json's `quantization_config`. ignored: linear layers that stay as they are."""

    def check(self, name: str, inputs: int, outputs: int) -> None:
        """Raises BuildError for a linear layer of sizes that the format can't hold."""

    def round(self, layer: DecoderLayer, inputs: Sequence[torch.Tensor]) -> RoundedLayer:
        """Round a layer's linears. inputs: hidden states (1, tokens, size) of the calibration text.
        The layer is left in any state. Raises BuildError."""


@dataclass(frozen=True, slots=True)
class GptqRecipe:
    """GPTQ files, version 1 of the format."""

    settings: Settings

    @property
    def label(self) -> str:
        return f"GPTQ, {self.settings.bits} bits,"

    def config(self, ignored: Sequence[str]) -> dict[str, Any]:
        settings = self.settings
        return {
            "quant_method": "gptq",
            "checkpoint_format": "gptq",
            "bits": settings.bits,
            "group_size": settings.group_size,
            # What a reader must know is whether g_idx has an order of its own.
            "desc_act": settings.act_order is ActOrder.GROUP,
            "sym": settings.symmetric,
            "lm_head": False,
            "true_sequential": True,
            "meta": {"quantizer": [QUANTIZER]},
        }

    def check(self, name: str, inputs: int, outputs: int) -> None:
        _check_groups(self.settings, name, inputs)
        _check_words(self.settings, name, "inputs", inputs)
        _check_words(self.settings, name, "outputs", outputs)

    def round(self, layer: DecoderLayer, inputs: Sequence[torch.Tensor]) -> RoundedLayer:
        settings = self.settings
        grid = Grid(settings.bits, settings.symmetric, least_zero=1)
        linears = layer.linears()
        found = RoundedLayer({}, {})
        for group in groups_of(layer, inputs[0]):
            # Of what the group reads behind linears that are rounded already.
            moments = moments_of(layer, [group], inputs)[group]
            for name in group.names:
                weight = linears[name].weight
                low = gptq(
                    weight,
                    moments,
                    grid,
                    group_size=settings.group_size,
                    act_order=settings.act_order,
                    name=f"{layer.name}.{name}",
                )
                rounded = low.dense().to(weight.device)
                found.add(name, gptq_tensors(low), output_error(weight, rounded, moments))
                layer.fill({f"{name}.weight": rounded})
        return found


@dataclass(frozen=True, slots=True)
class AwqRecipe:
    """AWQ files of the layout "gemm"."""

    settings: Settings

    @property
    def label(self) -> str:
        return f"AWQ, {self.settings.bits} bits,"

    def config(self, ignored: Sequence[str]) -> dict[str, Any]:
        return {
            "quant_method": "awq",
            "version": "gemm",
            "bits": self.settings.bits,
            "group_size": self.settings.group_size,
            "zero_point": True,  # there are zero points in the file, whatever they are
            "modules_to_not_convert": None,
            "meta": {"quantizer": [QUANTIZER]},
        }

    def check(self, name: str, inputs: int, outputs: int) -> None:
        _check_groups(self.settings, name, inputs)
        _check_words(self.settings, name, "outputs", outputs)

    def round(self, layer: DecoderLayer, inputs: Sequence[torch.Tensor]) -> RoundedLayer:
        grid, size = Grid(self.settings.bits, self.settings.symmetric), self.settings.group_size
        groups = groups_of(layer, inputs[0])
        moments = moments_of(layer, groups, inputs)
        linears = layer.linears()
        found = RoundedLayer({}, {})
        for group, maker in fold.makers_of(layer, groups, inputs[0]).items():
            weights = [linears[name].weight for name in group.names]
            scales = awq.scales_for(weights, moments[group], grid, size)
            divided = {
                # As the file holds them, so that what follows makes up for their rounding.
                name: tensor.to(layer.dtypes[name]).float()
                for name, tensor in maker.divided(layer, scales).items()
            }
            layer.fill(fold.multiplied(layer, group, scales) | divided)
            moments[group] = moments[group] / scales / scales[:, None]
            found.tensors.update(
                {name: tensor.to(layer.dtypes[name]).cpu() for name, tensor in divided.items()}
            )
        for group in groups:
            for name in group.names:
                weight = linears[name].weight
                low = awq.nearest(weight, moments[group], grid, size)
                found.tensors.pop(f"{name}.weight", None)
                found.add(name, awq_tensors(low), _error(weight, low, moments[group]))
        return found


def _error(weight: torch.Tensor, low: LowBitWeight, moments: torch.Tensor) -> float:
    return output_error(weight, low.dense().to(weight.device), moments)


def _check_groups(settings: Settings, name: str, inputs: int) -> None:
    if settings.group_size != -1 and inputs % settings.group_size:
        fitting = [size for size in GROUP_SIZES if size == -1 or inputs % size == 0]
        raise BuildError(
            f"{name} has {inputs} inputs, which are no whole groups of {settings.group_size}: "
            f"expected --group-size {' or '.join(map(str, fitting))}"
        )


def _check_words(settings: Settings, name: str, side: str, size: int) -> None:
    """The numbers of a row or of a column lie in whole words of 32 bits."""
    period = WORD // gcd(settings.bits, WORD)
    if size % period:
        raise BuildError(
            f"{name} has {size} {side}: {settings.bits} bits are stored for multiples of {period}; "
            f"expected other --bits, or --method int8"
        )
