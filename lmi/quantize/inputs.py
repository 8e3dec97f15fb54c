"""What the linear layers of a decoder layer are given: which of them share their input, and its
second moments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lmi.core import BuildError
from lmi.quantize.skeleton import DecoderLayer


@dataclass(frozen=True, slots=True)
class Group:
    """Linear layers that read the same tensor, such as the projections to queries, keys and values.

    names: within the decoder layer, in the order in which they run.
    """

    names: tuple[str, ...]


def groups_of(layer: DecoderLayer, hidden: torch.Tensor) -> list[Group]:
    """The layer's linear layers by the tensor that they read, in the order in which they run."""
    # The tensors are kept: the address of one that is gone may be another's.
    read: dict[int, tuple[torch.Tensor, list[str]]] = {}

    def note(name: str, given: torch.Tensor) -> None:
        _, names = read.setdefault(id(given), (given, []))
        names.append(name)

    with _Watched(layer.linears(), note):
        layer(hidden)
    return [Group(tuple(names)) for _, names in read.values()]


def moments_of(
    layer: DecoderLayer, groups: Sequence[Group], inputs: Iterable[torch.Tensor]
) -> dict[Group, torch.Tensor]:
    """For each group the second moments (in, in) of what it reads: the mean of x x' over all
    tokens. Raises BuildError, naming the layer, where they are not finite."""
    linears = layer.linears()
    first = {group.names[0]: group for group in groups}
    sums: dict[Group, torch.Tensor] = {}
    tokens = 0

    def add(name: str, given: torch.Tensor) -> None:
        rows = given.reshape(-1, given.shape[-1])
        group = first[name]
        if group not in sums:
            sums[group] = torch.zeros((rows.shape[1], rows.shape[1]), device=rows.device)
        sums[group].addmm_(rows.T, rows)

    with _Watched({name: linears[name] for name in first}, add):
        for hidden in inputs:
            layer(hidden)
            tokens += hidden.shape[1]
    for group, moments in sums.items():
        moments /= tokens
        if not bool(torch.isfinite(moments).all()):
            raise BuildError(
                f"{layer.name}.{group.names[0]}: what the calibration text gives it is not finite "
                "in float32: is the checkpoint whole?"
            )
    return sums


def output_error(weight: torch.Tensor, rounded: torch.Tensor, moments: torch.Tensor) -> float:
    """||(rounded - weight) x|| / ||weight x|| over the text behind the moments; 0 for 0 / 0."""
    lost = rounded - weight
    difference = float(((lost @ moments) * lost).sum(dtype=torch.float64))
    size = float(((weight @ moments) * weight).sum(dtype=torch.float64))
    return 0.0 if size <= 0 else (max(difference, 0.0) / size) ** 0.5


class _Watched:
    """Tells `note` of each call of some modules, and its input; a context manager."""

    def __init__(
        self, modules: dict[str, nn.Linear], note: Callable[[str, torch.Tensor], None]
    ) -> None:
        self._modules = modules
        self._note = note

    def __enter__(self) -> None:
        self._hooks = [
            module.register_forward_pre_hook(
                lambda _, arguments, name=name: self._note(name, arguments[0])
            )
            for name, module in self._modules.items()
        ]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
