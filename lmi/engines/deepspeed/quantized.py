"""A rank's part of the weights that stay low-bit: DeepSpeed decides which, LMI-Dist's kernels hold.

AutoTP knows plain linear layers. So each quantised one is taken out, a plain one without memory
stands in its place while DeepSpeed divides the model, and then row (or column) numbers are sent
through the splitter of DeepSpeed's own layer: what comes out is what this rank has to hold. That is
right for fused projections too, whose rows are dealt out by heads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from lmi.core import ModelError
from lmi.dist.kernels.base import Kernels
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.quantized.modules import LowBitLinear
from lmi.engines.deepspeed.call import submodule

_LAYERS: Final = "deepspeed.module_inject.layers"


class WholeLowBit(LowBitLinear):
    """A whole layer that can still be divided: it keeps its numbers as they were read."""

    def __init__(
        self,
        weight: LowBitWeight,
        bias: torch.Tensor | None,
        kernels: Kernels,
        *,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(weight, bias, kernels, dtype=dtype)
        self.numbers = Numbers(weight, bias, kernels, dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """What a quantised layer is made of."""

    weight: LowBitWeight
    bias: torch.Tensor | None
    kernels: Kernels
    dtype: torch.dtype

    def rows(self, index: torch.Tensor) -> LowBitLinear:
        """The layer of these outputs alone."""
        weight = self.weight
        part = replace(
            weight,
            values=weight.values[index].contiguous(),
            scales=weight.scales[index],
            zeros=None if weight.zeros is None else weight.zeros[index],
        )
        bias = None if self.bias is None else self.bias[index]
        return LowBitLinear(part, bias, self.kernels, dtype=self.dtype)


class Keeper:
    """A `lmi.dist.quantized.divided.Divider` that leaves the dividing for later."""

    def check(self, place: str, sizes: tuple[int, int], plan: object) -> None:
        """Nothing: DeepSpeed has no plan before it sees the model."""

    def part(
        self,
        place: str,
        weight: LowBitWeight,
        bias: torch.Tensor | None,
        kernels: Kernels,
        dtype: torch.dtype,
    ) -> LowBitLinear:
        """All of it."""
        return WholeLowBit(weight, bias, kernels, dtype=dtype)


def take_out(model: torch.nn.Module) -> dict[str, Numbers]:
    """Put plain layers without memory in the place of the quantised; what those were, by name."""
    found = {
        name: module.numbers
        for name, module in model.named_modules()
        if isinstance(module, WholeLowBit)
    }
    for name, numbers in found.items():
        outputs, inputs = numbers.weight.out_features, numbers.weight.in_features
        plain = torch.nn.Linear(inputs, outputs, bias=False, device="meta", dtype=numbers.dtype)
        model.set_submodule(name, plain)
    return found


def put_in(model: torch.nn.Module, taken: dict[str, Numbers]) -> None:
    """Put this rank's parts in the places of DeepSpeed's layers. Empties `taken`.

    Raises ModelError for a layer that DeepSpeed divides in a way that is not done here.
    """
    layers = submodule(_LAYERS)
    while taken:
        name, numbers = taken.popitem()
        layer = model.get_submodule(name)
        if isinstance(layer, layers.LinearAllreduce):
            start, stop = _run(_dealt(layer, (1, numbers.weight.in_features)), name)
            model.set_submodule(name, SummedLowBit(numbers, start, stop, layer))
        elif isinstance(layer, layers.LinearLayer):
            index = _dealt(layer, (numbers.weight.out_features, 1))
            model.set_submodule(name, numbers.rows(index))
        elif isinstance(layer, torch.nn.Linear):  # left whole on every rank
            model.set_submodule(name, numbers.rows(torch.arange(numbers.weight.out_features)))
        else:
            raise ModelError(
                f"{name} is quantised, and DeepSpeed divides it as {type(layer).__name__}, which "
                "is not done for quantised layers; expected tensor_parallel_degree 1"
            )


def _dealt(layer: Any, shape: tuple[int, int]) -> torch.Tensor:
    """The numbers of the rows, or columns, of a weight of this shape that the layer would keep."""
    index = torch.arange(max(shape), device="cpu").view(shape)
    kept = torch.nn.Parameter(index, requires_grad=False)
    layer._tp_partition([kept, None])
    return kept.detach().flatten().cpu()


def _run(index: torch.Tensor, name: str) -> tuple[int, int]:
    start, stop = int(index[0]), int(index[-1]) + 1
    if not torch.equal(index, torch.arange(start, stop)):
        raise ModelError(
            f"{name} is quantised, and DeepSpeed deals its inputs out in several pieces; expected "
            "tensor_parallel_degree 1"
        )
    return start, stop


class SummedLowBit(LowBitLinear):
    """Split by its inputs: DeepSpeed sums the ranks' results, and the bias is added to the sum."""

    def __init__(self, numbers: Numbers, start: int, stop: int, layer: Any) -> None:
        """start, stop: the inputs of this rank. layer: DeepSpeed's, whose place this takes."""
        columns = numbers.weight.columns(start, stop)
        super().__init__(columns, None, numbers.kernels, dtype=numbers.dtype)
        self._sum = submodule("deepspeed.comm").inference_all_reduce
        self._group = layer.mp_group
        bias = numbers.bias
        self._bias = None if bias is None else bias.to(numbers.dtype)
        # Its output head gets the whole input on every rank.
        whole = isinstance(layer, submodule(_LAYERS).LmHeadLinearAllreduce)
        self._part = slice(start, stop) if whole else slice(None)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(.., in features of this rank, or of all) -> (.., out features)."""
        out = super().forward(input[..., self._part])
        self._sum(out, group=self._group)
        return out if self._bias is None else out + self._bias.to(out.device, out.dtype)
