"""Checkpoints of the compressed-tensors format, as llm-compressor writes them.

config.json names groups of layers ("Linear", a layer's name, or "re:" and a pattern), each with a
scheme for weights and activations. A layer is, in the format int-quantized, weight (out, in) int8;
in pack-quantized, weight_packed (out, in / numbers per word) int32 and weight_shape (2). Both have
weight_scale (out, groups), and where they are not symmetric weight_zero_point. float-quantized is
FP8: see `lmi.dist.quantized.fp8`.
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
from lmi.dist.quantized.fp8 import (
    CHANNEL,
    TENSOR,
    WIDENED,
    Fp8Scheme,
    block_of,
    holds_fp8,
    read_fp8,
)
from lmi.dist.quantized.layer import Layer, canonical, group_count
from lmi.dist.quantized.settings import Settings

_NAIVE: Final = "naive-quantized"
_PACKED: Final = "pack-quantized"
_FLOAT: Final = "float-quantized"
_BITS: Final = {"int-quantized": (8,), _NAIVE: (8,), _FLOAT: (8,), _PACKED: (3, 4, 8)}
_PATTERN: Final = "re:"
_ANY: Final = "Linear"

# Parts of the configuration that change what the numbers mean, in ways that are not done.
_NOT_DONE: Final = ("transform_config",)


@dataclass(frozen=True, slots=True)
class Scheme:
    """How one group of layers is quantised. strategy: what shares a scale: tensor, channel or
    group. float8: of layers in FP8, to which the rest does not apply."""

    targets: tuple[str, ...]
    packed: bool
    bits: int
    symmetric: bool
    strategy: str
    group_size: int
    activation_bits: int | None
    float8: Fp8Scheme | None = None


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
        _check_cache(values.get("kv_cache_scheme"), f"{where}: kv_cache_scheme")
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
        kinds = {_kind(scheme): None for scheme in self.schemes}
        return f"compressed-tensors, {' and '.join(kinds)}"

    def read(self, checkpoint: Checkpoint, name: str, /) -> LowBitWeight | None:
        """The layer `name`, whole; None where it is not quantised. Raises ModelError."""
        layer = Layer(checkpoint, name)
        float8 = holds_fp8(layer, checkpoint)
        if not (float8 or layer.has("weight_packed") or layer.holds_integers("weight")):
            return None
        scheme = self._scheme_of(name)
        if float8 != (scheme.float8 is not None):
            raise layer.error(
                "weight", f"does not hold what {self.where} says of it: {_kind(scheme)}"
            )
        if scheme.float8 is not None:
            return read_fp8(layer, scheme.float8)
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


def _kind(scheme: Scheme) -> str:
    if scheme.float8 is not None:
        return f"W8A8 (FP8, {WIDENED})" if scheme.float8.rounds_rows else f"W8A16 (FP8, {WIDENED})"
    return f"W{scheme.bits}A{scheme.activation_bits or 16}"


def _check_cache(values: dict[str, Any] | None, where: str) -> None:
    """Of the forms that a checkpoint's scales of K and V are made for, FP8 per layer is known."""
    if not values:
        return
    settings = Settings(values, where)
    settings.one_of("num_bits", 8, (8,))
    settings.one_of("type", "float", ("float",))
    settings.one_of("strategy", TENSOR, (TENSOR,))


def _scheme(group: dict[str, Any], whole_format: str | None, where: str) -> Scheme:
    kind = Settings({"format": group.get("format") or whole_format}, where).one_of(
        "format", None, tuple(_BITS)
    )
    weights = group.get("weights") or {}
    settings = Settings(weights, f"{where}.weights")
    if kind == _FLOAT or (kind == _NAIVE and weights.get("type") == "float"):
        return _float_scheme(group, settings, where)
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


def _float_scheme(group: dict[str, Any], settings: Settings, where: str) -> Scheme:
    weights, rows = group["weights"], group.get("input_activations")
    settings.one_of("type", None, ("float",))
    settings.one_of("num_bits", 8, (8,))
    strategy = settings.one_of("strategy", TENSOR, (TENSOR, CHANNEL, "block"))
    shared: str | tuple[int, int] = strategy
    if strategy == "block":
        shared = block_of(weights.get("block_structure"), settings)
    if rows:
        own = Settings(rows, f"{where}.input_activations")
        own.one_of("type", None, ("float",))
        own.one_of("num_bits", 8, (8,))
    return Scheme(
        targets=tuple(group.get("targets") or ()),
        packed=False,
        bits=8,
        symmetric=True,
        strategy=strategy,
        group_size=-1,
        activation_bits=None,
        float8=Fp8Scheme(shared, rounds_rows=bool(rows)),
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
