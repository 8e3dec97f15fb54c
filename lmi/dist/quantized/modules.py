"""A quantised layer as a torch module, and its place in a model of such modules."""

from __future__ import annotations

import torch

from lmi.core import ModelError
from lmi.dist.kernels.base import Kernels
from lmi.dist.kernels.low_bit import LowBitWeight


class LowBitLinear(torch.nn.Module):
    """What torch.nn.Linear is, over a weight that stays quantised in memory.

    It has neither parameters nor buffers: what the kernels made of weight and bias is their own,
    lies on their device, and is neither moved, cast nor saved with the model. nbytes: of it.
    """

    def __init__(
        self,
        weight: LowBitWeight,
        bias: torch.Tensor | None,
        kernels: Kernels,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        """bias: (out), or None. dtype: what `weight` says of itself; None: the kernels' own."""
        super().__init__()
        self.in_features, self.out_features = weight.in_features, weight.out_features
        self._linear = kernels.low_bit_linear(weight, bias)
        self.nbytes = self._linear.nbytes
        self._activation = kernels.activation
        self._dtype = dtype or kernels.activation

    @property
    def weight(self) -> torch.Tensor:
        """(out, in) on the device "meta": modelling code asks for dtype and shape of a weight.
        What reads its numbers fails at once."""
        shape = (self.out_features, self.in_features)
        return torch.empty(shape, dtype=self._dtype, device="meta")

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(.., in features) -> (.., out features), in the dtype of the input."""
        rows = input.reshape(-1, self.in_features).to(self._activation).contiguous()
        # A copy: kernels use the memory of their results again.
        out = self._linear(rows).to(input.dtype, copy=True)
        return out.view(*input.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """The sizes, as torch.nn.Linear has them."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


def replace_linear(model: torch.nn.Module, name: str, module: LowBitLinear) -> None:
    """Put `module` in the place of the linear layer `name`, a dotted path from `model`.

    The layer there may also be transformers' Conv1D, whose weight is (in, out). Raises ModelError
    where there is none of the module's sizes.
    """
    try:
        there = model.get_submodule(name)
    except AttributeError:
        there = None
    found = linear_sizes(there)
    want = (module.out_features, module.in_features)
    if found != want:
        what = "no linear layer" if found is None else f"one of the sizes {found}"
        raise ModelError(
            f"{type(model).__name__}: the quantised layer {name} has the sizes {want}, (outputs, "
            f"inputs), and the model has {what} there"
        )
    model.set_submodule(name, module)


def linear_sizes(module: torch.nn.Module | None) -> tuple[int, int] | None:
    """(outputs, inputs) of a linear layer or of transformers' Conv1D; None for anything else."""
    if isinstance(module, torch.nn.Linear | LowBitLinear):
        return module.out_features, module.in_features
    # By its name: transformers is not imported for it.
    weight = getattr(module, "weight", None)
    if type(module).__name__ == "Conv1D" and weight is not None:
        inputs, outputs = weight.shape
        return int(outputs), int(inputs)
    return None
