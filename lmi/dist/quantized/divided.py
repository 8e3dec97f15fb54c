"""Quantised layers of a transformers model, divided among ranks by that library's plan.

A plan names a style for each kind of layer. The styles of linear layers are done here on
`LowBitWeight`s, through the job's `Collective`, as `lmi.dist.parallel.hosted` does those of plain
ones. A layer that the plan doesn't name is whole on each rank.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Protocol

import torch

from lmi.core import ModelError
from lmi.dist.collectives.base import Collective
from lmi.dist.decoder.shard import Shard
from lmi.dist.kernels.base import Kernels
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.quantized.modules import LowBitLinear

_OUTPUTS: Final = frozenset({"colwise", "colwise_gather_output", "colwise_rep"})
_GATHERED: Final = frozenset({"colwise_gather_output", "colwise_rep"})
_INPUTS: Final = frozenset({"rowwise", "rowwise_split_input", "rowwise_rep"})
_WHOLE_INPUT: Final = frozenset({"rowwise_split_input", "rowwise_rep"})


class SummedLowBit(LowBitLinear):
    """Split by its inputs: the ranks' results are summed. input_part: where the input is whole on
    every rank, the columns of it that this one takes."""

    def __init__(
        self,
        weight: LowBitWeight,
        bias: torch.Tensor | None,
        kernels: Kernels,
        *,
        dtype: torch.dtype,
        collective: Collective,
        input_part: tuple[int, int] | None,
    ) -> None:
        super().__init__(weight, bias, kernels, dtype=dtype)
        self._collective = collective
        self._input_part = input_part

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(.., in features of this rank, or of all) -> (.., out features)."""
        if self._input_part is not None:
            start, stop = self._input_part
            input = input[..., start:stop]
        return self._collective.all_reduce(super().forward(input))


class GatheredLowBit(LowBitLinear):
    """Split by its outputs, of which every rank gets all."""

    def __init__(
        self,
        weight: LowBitWeight,
        bias: torch.Tensor | None,
        kernels: Kernels,
        *,
        dtype: torch.dtype,
        collective: Collective,
    ) -> None:
        super().__init__(weight, bias, kernels, dtype=dtype)
        self._collective = collective

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(.., in features) -> (.., out features of all ranks)."""
        part = super().forward(input)
        whole = self._collective.all_gather(part.reshape(-1, self.out_features))
        return whole.view(*input.shape[:-1], self.out_features * self._collective.size)


class Divider(Protocol):
    """Makes a rank's part of each quantised layer."""

    def check(self, place: str, sizes: tuple[int, int], plan: Mapping[str, str], /) -> None:
        """Look at a layer before any is read: the module `place`, of the sizes (outputs, inputs).

        plan: transformers'. Raises ConfigError or ModelError.
        """

    def part(
        self,
        place: str,
        weight: LowBitWeight,
        bias: torch.Tensor | None,
        kernels: Kernels,
        dtype: torch.dtype,
        /,
    ) -> LowBitLinear:
        """The module for a layer that `check` was asked about."""


class Division:
    """A `Divider` by transformers' plan."""

    def __init__(self, collective: Collective) -> None:
        self._collective = collective
        self._shard = Shard(collective.rank, collective.size)
        self._styles: dict[str, str | None] = {}

    def check(self, place: str, sizes: tuple[int, int], plan: Mapping[str, str]) -> None:
        """Remember the plan's style for the module `place`, of the sizes (outputs, inputs).

        Raises ModelError for a style that is not done for quantised layers, ConfigError or
        ModelError for sizes that can't be divided.
        """
        style = plan.get(re.sub(r"\.\d+(?=\.|$)", ".*", place))
        self._styles[place] = style
        outputs, inputs = sizes
        if style in _OUTPUTS:
            self._shard.part(outputs, f"outputs of {place}")
        elif style in _INPUTS:
            self._shard.part(inputs, f"inputs of {place}")
        elif style is not None:
            raise ModelError(
                f"{place} is quantised, and transformers divides it in the way {style}, which is "
                "not done for quantised layers; expected tensor_parallel 1"
            )

    def part(
        self,
        place: str,
        weight: LowBitWeight,
        bias: torch.Tensor | None,
        kernels: Kernels,
        dtype: torch.dtype,
    ) -> LowBitLinear:
        """This rank's module for the layer that `check` was asked about."""
        style = self._styles[place]
        if style in _OUTPUTS:
            start, stop = self._shard.part(weight.out_features, f"outputs of {place}")
            rows = weight.rows(start, stop)
            own = None if bias is None else bias[start:stop]
            if style in _GATHERED:
                return GatheredLowBit(rows, own, kernels, dtype=dtype, collective=self._collective)
            return LowBitLinear(rows, own, kernels, dtype=dtype)
        if style in _INPUTS:
            part = self._shard.part(weight.in_features, f"inputs of {place}")
            return SummedLowBit(
                weight.columns(*part),
                None
                if self._shard.rank
                else bias,  # one rank adds it, or the sum would have it often
                kernels,
                dtype=dtype,
                collective=self._collective,
                input_part=part if style in _WHOLE_INPUT else None,
            )
        return LowBitLinear(weight, bias, kernels, dtype=dtype)
