"""INT8 and FP8, rounded to nearest: no search, and activations rounded as they come (W8A8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from lmi.quantize.inputs import groups_of, moments_of, output_error
from lmi.quantize.recipes import RoundedLayer
from lmi.quantize.skeleton import DecoderLayer
from lmi.quantize.smoothquant import int8

# The largest number of e4m3 without infinities.
FP8_MOST: Final = float(torch.finfo(torch.float8_e4m3fn).max)


class NearestRecipe:
    """What both have in common: a weight and a scale for each output."""

    def check(self, name: str, inputs: int, outputs: int) -> None:
        """Any size can be held."""

    def round(self, layer: DecoderLayer, inputs: Sequence[torch.Tensor]) -> RoundedLayer:
        """Each linear alone."""
        found = RoundedLayer({}, {})
        groups = groups_of(layer, inputs[0])
        linears = layer.linears()
        for group, moments in moments_of(layer, groups, inputs).items():
            for name in group.names:
                weight = linears[name].weight
                values, scales = self.rounded(weight, layer.dtypes[f"{name}.weight"])
                error = output_error(weight, values.float() * scales.float(), moments)
                found.add(name, {"weight": values.cpu(), "weight_scale": scales.cpu()}, error)
        return found

    def rounded(
        self, weight: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(out, in) float32 -> values (out, in) and scales (out, 1) in `dtype`."""
        raise NotImplementedError


class Int8Recipe(NearestRecipe):
    """compressed-tensors' "int-quantized"."""

    label = "INT8"

    def config(self, ignored: Sequence[str]) -> dict[str, Any]:
        return int8.quantization_config(list(ignored))

    def rounded(
        self, weight: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return int8.quantise(weight, dtype)


class Fp8Recipe(NearestRecipe):
    """compressed-tensors' "float-quantized", in e4m3."""

    label = "FP8"

    def config(self, ignored: Sequence[str]) -> dict[str, Any]:
        told = int8.quantization_config(list(ignored))
        (group,) = told["config_groups"].values()
        group["format"] = told["format"] = "float-quantized"
        for part in ("weights", "input_activations"):
            group[part]["type"] = "float"
        return told

    def rounded(
        self, weight: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        largest = weight.abs().amax(1, keepdim=True)
        scales = (largest / FP8_MOST).clamp(min=torch.finfo(dtype).tiny).to(dtype)
        values = (weight / scales.float()).clamp(-FP8_MOST, FP8_MOST)
        return values.to(torch.float8_e4m3fn), scales
