"""Scales moved from the inputs of linear layers into what makes these inputs.

Multiply the columns of the layers that read a tensor by s, and divide by s what makes the tensor:
the model computes the same. What makes it can be a norm, a norm that adds 1 to its weight (as
Gemma's), or a linear layer with nothing nonlinear between (values before the attention's output,
the up projection of a gated MLP, what stands before a ReLU). No list of families says which: each
place is tried with random scales, and taken where the decoder layer then still computes the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

import torch
from torch import nn

from lmi.quantize.inputs import Group
from lmi.quantize.skeleton import DecoderLayer

# How much of what the scaled columns change may be left when the maker is divided: rounding.
LEFT: Final = 1e-3
_SEED: Final = 7


class _Kind(Enum):
    PLAIN = "its weight, and its bias if it has one, are divided"
    PLUS_ONE = "its weight and 1 are divided"


@dataclass(frozen=True, slots=True)
class Maker:
    """A module of a decoder layer whose result is what a group reads."""

    name: str
    kind: _Kind

    def divided(self, layer: DecoderLayer, scales: torch.Tensor) -> dict[str, torch.Tensor]:
        """Its tensors, by their names in the layer, such that its result is divided by scales."""
        module = layer.module.get_submodule(self.name)
        weight: torch.Tensor = module.weight
        by = scales if weight.dim() == 1 else scales[:, None]
        found = {
            "weight": (1 + weight) / by - 1 if self.kind is _Kind.PLUS_ONE else weight / by,
        }
        if getattr(module, "bias", None) is not None:
            found["bias"] = module.bias / scales
        return {f"{self.name}.{key}": tensor for key, tensor in found.items()}


def makers_of(layer: DecoderLayer, groups: list[Group], hidden: torch.Tensor) -> dict[Group, Maker]:
    """For each group what makes its input; groups for which nothing is found are left out.

    hidden: a window on which it is tried. The layer is as before when this returns.
    """
    want = layer(hidden)
    generator = torch.Generator().manual_seed(_SEED)
    found = {}
    for group in groups:
        width = layer.linears()[group.names[0]].in_features
        scales = (torch.rand(width, generator=generator) * 1.5 + 0.5).to(hidden.device)
        columns = multiplied(layer, group, scales)
        changed = _distance(layer, columns, hidden, want)
        for maker in _candidates(layer, group, width):
            both = columns | maker.divided(layer, scales)
            if _distance(layer, both, hidden, want) <= LEFT * changed:
                found[group] = maker
                break
    return found


def multiplied(layer: DecoderLayer, group: Group, scales: torch.Tensor) -> dict[str, torch.Tensor]:
    """The weights of a group with their columns multiplied, by their names in the layer."""
    linears = layer.linears()
    return {f"{name}.weight": linears[name].weight * scales for name in group.names}


def _candidates(layer: DecoderLayer, group: Group, width: int) -> Iterator[Maker]:
    for name, module in layer.module.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Linear):
            if module.out_features == width and name not in group.names:
                yield Maker(name, _Kind.PLAIN)
        elif isinstance(weight, torch.Tensor) and tuple(weight.shape) == (width,):
            yield Maker(name, _Kind.PLAIN)
            yield Maker(name, _Kind.PLUS_ONE)


def _distance(
    layer: DecoderLayer,
    changes: Mapping[str, torch.Tensor],
    hidden: torch.Tensor,
    want: torch.Tensor,
) -> float:
    """How far the layer's result is from `want` with these tensors, which are then taken back."""
    own = dict(layer.module.named_parameters())
    before = {name: own[name] for name in changes}
    layer.fill(changes)
    try:
        return float((layer(hidden) - want).norm())
    finally:
        layer.fill(before)
