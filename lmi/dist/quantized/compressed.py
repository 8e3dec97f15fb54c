"""Checkpoints of the compressed-tensors format, as llm-compressor writes them.

config.json names groups of layers ("Linear", a layer's name, or "re:" and a pattern), each with a
scheme for weights and activations. A layer is, in the format int-quantized, weight (out, in) int8;
in pack-quantized, weight_packed (out, in / numbers per word) int32 and weight_shape (2). Both have
weight_scale (out, groups), and where they are not symmetric weight_zero_point.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import torch

from lmi.core import ModelError
from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.quantized.bits import WORD, unpack_words
from lmi.dist.quantized.layer import Layer, canonical, group_count
from lmi.dist.quantized.settings import Settings

_WHOLE: Final = ("int-quantized", "naive-quantized")
_PACKED: Final = "pack-quantized"
_BITS: Final = {"int-quantized": (8,), "naive-quantized": (8,), _PACKED: (3, 4, 8)}
_PATTERN: Final = "re:"
_ANY: Final = "Linear"

# Parts of the configuration that change what the numbers mean, in ways that are not done.
_NOT_DONE: Final = ("kv_cache_scheme", "transform_config")


@dataclass(frozen=True, slots=True)
class Scheme:
    """How one group of layers is quantised. strategy: what shares a scale: tensor, channel or
    group."""

    targets: tuple[str, ...]
    packed: bool
    bits: int
    symmetric: bool
    strategy: str
    group_size: int
    activation_bits: int | None


@dataclass(frozen=True, slots=True)
class CompressedReader:
    """Reads the layers of one checkpoint."""

    schemes: tuple[Scheme, ...]
    where: str

    @classmethod
    def of(cls, values: dict[str, Any], where: str) -> CompressedReader:
        """From config.json's `quantization_config`. Raises ModelError for what it can't read."""
        settings = Settings(values, where)
        for name in _NOT_DONE:
            if values.get(name):
                raise settings.error(name, values[name], "none")
        sparsity = (values.get("sparsity_config") or {}).get("format", "dense")
        if sparsity != "dense":
            raise settings.error("sparsity_config.format", sparsity, "dense")
        groups = values.get("config_groups")
        if not isinstance(groups, dict) or not groups:
            raise settings.error("config_groups", groups, "at least one group of layers")
        return cls(
            tuple(
                _scheme(group, values.get("format"), f"{where}: {name}")
                for name, group in groups.items()
            ),
            where,
        )

    @property
    def label(self) -> str:
        """For the start-up log."""
        kinds = {f"W{s.bits}A{s.activation_bits or 16}": None for s in self.schemes}
        return f"compressed-tensors, {' and '.join(kinds)}"

    def read(self, checkpoint: Checkpoint, name: str, /) -> LowBitWeight | None:
        """The layer `name`, whole; None where it is not quantised. Raises ModelError."""
        layer = Layer(checkpoint, name)
        if not layer.has("weight_packed") and not layer.holds_integers("weight"):
            return None
        scheme = self._scheme_of(name)
        return _read_packed(layer, scheme) if scheme.packed else _read_whole(layer, scheme)

    def _scheme_of(self, name: str) -> Scheme:
        for matches in (_is_named, _is_like, _is_any):
            for scheme in self.schemes:
                if matches(name, scheme.targets):
                    return scheme
        raise ModelError(f"{self.where}: no group of config_groups has the layer {name}")


def _is_named(name: str, targets: Iterable[str]) -> bool:
    return name in targets


def _is_like(name: str, targets: Iterable[str]) -> bool:
    patterns = [target[len(_PATTERN) :] for target in targets if target.startswith(_PATTERN)]
    return any(re.match(pattern, name) for pattern in patterns)


def _is_any(name: str, targets: Iterable[str]) -> bool:
    return _ANY in targets


def _scheme(group: dict[str, Any], whole_format: str | None, where: str) -> Scheme:
    kind = Settings({"format": group.get("format") or whole_format}, where).one_of(
        "format", None, tuple(_BITS)
    )
    weights = group.get("weights") or {}
    settings = Settings(weights, f"{where}.weights")
    settings.one_of("type", "int", ("int",))
    strategy = settings.one_of("strategy", "tensor", ("tensor", "channel", "group"))
    size = settings.group_size("group_size") if weights.get("group_size") is not None else -1
    if strategy == "group" and size == -1:
        raise settings.error("group_size", weights.get("group_size"), "a whole number from 1")
    if group.get("output_activations"):
        raise settings.error("output_activations", group["output_activations"], "none")
    return Scheme(
        targets=tuple(group.get("targets") or ()),
        packed=kind == _PACKED,
        bits=settings.one_of("num_bits", 8, _BITS[kind]),
        symmetric=bool(weights.get("symmetric", True)),
        strategy=strategy,
        group_size=size if strategy == "group" else -1,
        activation_bits=_activation_bits(
            group.get("input_activations"), kind == _PACKED, f"{where}.input_activations"
        ),
    )


def _activation_bits(values: dict[str, Any] | None, packed: bool, where: str) -> int | None:
    """8 where the rows are quantised as they come, one scale each; None where they are not."""
    if not values:
        return None
    settings = Settings(values, where)
    if packed:
        raise settings.error("num_bits", values.get("num_bits"), "none beside packed weights")
    for name, known in (("type", "int"), ("strategy", "token")):
        settings.one_of(name, known, (known,))
    for name, default in (("dynamic", False), ("symmetric", True)):
        if values.get(name, default) is not True:
            raise settings.error(name, values.get(name, default), "true")
    return settings.one_of("num_bits", 8, (8,))


def _read_whole(layer: Layer, scheme: Scheme) -> LowBitWeight:
    values = layer.take("weight", dtype=torch.int8)
    if values.dim() != 2:
        raise layer.error("weight", f"has the shape {tuple(values.shape)}: expected two sizes")
    outputs, inputs = values.shape
    groups = group_count(inputs, scheme.group_size)
    zeros = None
    if not scheme.symmetric:
        rows = 1 if scheme.strategy == "tensor" else outputs
        stored = layer.take("weight_zero_point", dtype=torch.int8)
        if stored.numel() != rows * groups:
            raise layer.error(
                "weight_zero_point",
                f"has the shape {tuple(stored.shape)}, expected {(rows, groups)}",
            )
        zeros = stored.float().reshape(rows, groups).expand(outputs, groups).contiguous()
    return LowBitWeight(
        8,
        values,
        _scales(layer, scheme, outputs, groups),
        zeros,
        layer.groups("weight_g_idx", inputs, groups, _size(scheme, inputs)),
        scheme.activation_bits,
    )


def _read_packed(layer: Layer, scheme: Scheme) -> LowBitWeight:
    bits, per_word = scheme.bits, WORD // scheme.bits
    shape = layer.take("weight_shape", (2,), dtype=torch.int64).tolist()
    outputs, inputs = int(shape[0]), int(shape[1])
    if outputs < 1 or inputs < 1:
        raise layer.error("weight_shape", f"is {shape}: expected two numbers from 1")
    words = layer.take("weight_packed", (outputs, -(-inputs // per_word)), dtype=torch.int32)
    groups = group_count(inputs, scheme.group_size)
    zeros = None
    if not scheme.symmetric:
        if scheme.strategy == "tensor":
            raise layer.error("weight_zero_point", "is of a whole tensor: expected groups or rows")
        stored = layer.take(
            "weight_zero_point", (-(-outputs // per_word), groups), dtype=torch.int32
        )
        zeros = unpack_words(stored.T, bits).T[:outputs]
    return canonical(
        bits,
        unpack_words(words, bits)[:, :inputs],
        _scales(layer, scheme, outputs, groups),
        zeros,
        layer.groups("weight_g_idx", inputs, groups, _size(scheme, inputs)),
    )


def _scales(layer: Layer, scheme: Scheme, outputs: int, groups: int) -> torch.Tensor:
    rows = 1 if scheme.strategy == "tensor" else outputs
    found = layer.scales("weight_scale", (rows, groups))
    return found.expand(outputs, groups).contiguous()


def _size(scheme: Scheme, inputs: int) -> int:
    return inputs if scheme.group_size == -1 else scheme.group_size
