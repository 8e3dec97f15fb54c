"""One quantised layer's tensors, each checked as it is taken."""

from __future__ import annotations

from math import ceil
from typing import Final

import torch

from lmi.core import ModelError
from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.dist.kernels.low_bit import LowBitWeight

# What only a quantised layer has beside its weight, or in its place, in any format known.
_MARKS: Final = ("qweight", "weight_packed", "weight_scale", "weight_scale_inv")
# How safetensors' names of dtypes begin that no plain weight has: whole numbers, and 8 bits.
_NARROW: Final = ("I", "U", "F8")


def quantised_layers(checkpoint: Checkpoint) -> list[str]:
    """The names of all layers that some format would call quantised, by their tensors alone."""
    found: dict[str, None] = {}
    for name in checkpoint.names():
        layer, _, suffix = name.rpartition(".")
        if suffix in _MARKS or (
            suffix == "weight" and checkpoint.dtype_name(name).startswith(_NARROW)
        ):
            found[layer] = None
    return list(found)


def check_shape(
    checkpoint: Checkpoint, name: str, weight: LowBitWeight, shape: tuple[int, int]
) -> None:
    """Raise ModelError unless the layer `name` has the model's shape (outputs, inputs)."""
    found = (weight.out_features, weight.in_features)
    if found != shape:
        raise ModelError(
            f"{checkpoint.where_layer(name)}: {name} has the quantised shape {found}, config.json "
            f"says {shape}"
        )


class Layer:
    """The tensors that begin with a layer's name. Errors are ModelErrors that name file and
    tensor."""

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        self._checkpoint = checkpoint
        self.name = name

    def has(self, suffix: str) -> bool:
        """Whether there is such a tensor."""
        return f"{self.name}.{suffix}" in self._checkpoint

    def holds_integers(self, suffix: str) -> bool:
        """Whether there is such a tensor, of whole numbers."""
        name = f"{self.name}.{suffix}"
        return self.has(suffix) and self._checkpoint.dtype_name(name).startswith(("I", "U"))

    def take(
        self, suffix: str, shape: tuple[int, ...] | None = None, *, dtype: torch.dtype
    ) -> torch.Tensor:
        """A tensor of this dtype and, where it is known, shape."""
        name = f"{self.name}.{suffix}"
        tensor = self._checkpoint.take(name)
        if tensor.dtype != dtype:
            raise self.error(suffix, f"is {tensor.dtype}, expected {dtype}")
        if shape is not None and tuple(tensor.shape) != shape:
            raise self.error(suffix, f"has the shape {tuple(tensor.shape)}, expected {shape}")
        return tensor

    def scales(self, suffix: str, shape: tuple[int, int]) -> torch.Tensor:
        """Scales in float32, all finite. shape: (rows, columns); a single column may be missing
        from the file's shape."""
        found = self.finite(suffix)
        if tuple(found.shape) not in (shape, shape[:1] if shape[1] == 1 else shape):
            raise self.error(suffix, f"has the shape {tuple(found.shape)}, expected {shape}")
        return found.reshape(shape)

    def finite(self, suffix: str) -> torch.Tensor:
        """Scales of any shape in float32, all finite."""
        tensor = self._checkpoint.take(f"{self.name}.{suffix}")
        if not tensor.is_floating_point():
            raise self.error(suffix, f"is {tensor.dtype}, expected a floating-point type")
        found = tensor.float()
        if not torch.isfinite(found).all():
            raise self.error(suffix, "holds a scale that is not finite")
        return found

    def groups(self, suffix: str, inputs: int, groups: int, size: int) -> torch.Tensor | None:
        """The group of each input feature, for `LowBitWeight.group`. size: of a consecutive group,
        where the file has no order of its own. None where the groups are equal runs."""
        plain = torch.arange(inputs) // size
        index = plain
        if self.has(suffix):
            index = self.take(suffix, (inputs,), dtype=torch.int32).long()
            if (index < 0).all():  # compressed-tensors' mark of an order that was never made
                index = plain
            elif index.min() < 0 or index.max() >= groups:
                low, high = int(index.min()), int(index.max())
                raise self.error(suffix, f"names groups {low} to {high} of {groups}")
        regular = torch.equal(index, torch.arange(inputs) // (inputs // groups))
        return None if regular else index

    def error(self, suffix: str, what: str) -> ModelError:
        """What is wrong with one tensor of the layer."""
        name = f"{self.name}.{suffix}"
        return ModelError(f"{self._checkpoint.where(name)}: {name} {what}")


def group_count(inputs: int, group_size: int) -> int:
    """Groups of a layer; the last may be smaller. group_size -1: one for all inputs."""
    return 1 if group_size == -1 else ceil(inputs / group_size)


def canonical(
    bits: int,
    values: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None,
    group: torch.Tensor | None,
    activation_bits: int | None = None,
) -> LowBitWeight:
    """A weight of unsigned numbers in the one form that kernels know.

    values (out, in) uint8, zeros (out, groups) or None for the middle of the range: 8 bits become
    int8, and zero points that all are the middle of the range are left out.
    """
    middle = 1 << (bits - 1)
    if zeros is not None and bool((zeros == middle).all()):
        zeros = None
    if bits == 8:
        values = (values ^ 0x80).view(torch.int8)  # minus 128
        zeros = None if zeros is None else zeros.float() - middle
    elif zeros is not None:
        zeros = zeros.float()
    return LowBitWeight(
        bits,
        values.contiguous(),
        scales.contiguous(),
        None if zeros is None else zeros.contiguous(),
        group,
        activation_bits,
    )
