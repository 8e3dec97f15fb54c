"""From a checkpoint's tensors to a decoder's layers, each packed for the processor at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from lmi.core import ModelError
from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.dist.decoder.config import DecoderConfig, Surplus
from lmi.dist.decoder.mixture import Mixture
from lmi.dist.decoder.mlp import GatedMlp, Mlp
from lmi.dist.decoder.shard import Shard, splits_vocabulary
from lmi.dist.kernels.base import Heads, Kernels, Linear
from lmi.dist.kernels.low_bit import LowBitWeight, side_by_side
from lmi.dist.quantized.layer import check_shape, quantised_layers

Progress = Callable[[str, int, int], None]

# What checkpoints hold beside weights: tables that are computed anew.
_COMPUTED = ("rotary_emb.inv_freq", "masked_bias", "attention.bias")


@dataclass(frozen=True, slots=True, eq=False)
class DecoderLayer:
    """One layer on this rank. next_norm: the norm after it, of the next layer or the last one."""

    qkv: Linear
    heads: Heads
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    output: Linear
    second_norm: torch.Tensor
    mlp: Mlp
    next_norm: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Everything a decoder computes with. first_norm: of the first layer. nbytes: of all of it."""

    table: torch.Tensor
    first_norm: torch.Tensor
    layers: tuple[DecoderLayer, ...]
    head: Linear
    nbytes: int


class SideBySide:
    """Linear layers over the same rows whose outputs stand side by side."""

    def __init__(self, linears: list[Linear]) -> None:
        self._linears = linears
        self.in_features = linears[0].in_features
        self.out_features = sum(linear.out_features for linear in linears)
        self.nbytes = sum(linear.nbytes for linear in linears)

    def __call__(self, rows: torch.Tensor, /) -> torch.Tensor:
        """(rows, in_features) -> (rows, out_features)."""
        return torch.cat([linear(rows) for linear in self._linears], dim=-1)


class QuantizedReader(Protocol):
    """Reads the layers of one quantised checkpoint; `lmi.dist.quantized` has one per format."""

    def read(self, checkpoint: Checkpoint, name: str, /) -> LowBitWeight | None:
        """The layer's whole weight; None where this layer is not quantised. Raises ModelError,
        naming file and tensor."""


class WeightReader:
    """Reads and packs one rank's share of a checkpoint. quantized: None for a plain one."""

    def __init__(
        self,
        config: DecoderConfig,
        checkpoint: Checkpoint,
        kernels: Kernels,
        shard: Shard,
        dtype: torch.dtype,
        device: torch.device,
        quantized: QuantizedReader | None = None,
    ) -> None:
        self._quantized = quantized
        self._config = config
        self._checkpoint = checkpoint
        self._kernels = kernels
        self._shard = shard
        self._dtype = dtype
        self._device = device
        self._marked = frozenset(quantised_layers(checkpoint))
        self._nbytes = 0

    def read(self, progress: Progress) -> Weights:
        """Read all layers. Raises ModelError for what is missing, misshapen or left over."""
        config, total = self._config, self._checkpoint.total_bytes
        progress("load weights", 0, total)
        table = self._tensor("model.embed_tokens.weight", (config.vocab_size, config.hidden))
        norms = [
            self._norm(f"model.layers.{index}.input_layernorm") for index in range(config.layers)
        ]
        norms.append(self._norm("model.norm"))
        layers = []
        for index in range(config.layers):
            layers.append(self._layer(index, norms[index + 1]))
            progress("load weights", min(self._checkpoint.bytes_read, total), total)
        head = self._head(table)
        left = self._checkpoint.left_over(_COMPUTED)
        if left:
            raise Surplus(
                f"{self._checkpoint.where(left[0])}: {len(left)} tensors belong to no layer of a "
                f"{config.kind} model, among them {left[0]}"
            )
        progress("load weights", total, total)
        return Weights(table, norms[0], tuple(layers), head, self._nbytes)

    def _layer(self, index: int, next_norm: torch.Tensor) -> DecoderLayer:
        config, shard = self._config, self._shard
        base = f"model.layers.{index}"
        heads = Heads(
            query=config.heads // shard.size,
            kv=config.kv_heads // shard.size,
            size=config.head_size,
            rotary=config.rope.size,
            scaling=config.head_size**-0.5,
            window=config.windows[index],
        )
        widths = [config.heads, config.kv_heads, config.kv_heads]
        names = [f"{base}.self_attn.{name}_proj" for name in "qkv"]
        return DecoderLayer(
            qkv=self._side_by_side(names, [w * config.head_size for w in widths], config.hidden),
            heads=heads,
            query_norm=self._head_norm(f"{base}.self_attn.q_norm"),
            key_norm=self._head_norm(f"{base}.self_attn.k_norm"),
            output=self._summed(
                f"{base}.self_attn.o_proj", config.hidden, config.heads * config.head_size
            ),
            second_norm=self._norm(f"{base}.post_attention_layernorm"),
            mlp=self._mixture(base) if config.experts else self._mlp(base),
            next_norm=next_norm,
        )

    def _mlp(self, base: str) -> Mlp:
        config = self._config
        names = [f"{base}.mlp.gate_proj", f"{base}.mlp.up_proj"]
        return GatedMlp(
            self._kernels,
            self._side_by_side(names, [config.intermediate] * 2, config.hidden),
            self._summed(f"{base}.mlp.down_proj", config.hidden, config.intermediate),
        )

    def _mixture(self, base: str) -> Mlp:
        config = self._config
        base = f"{base}.block_sparse_moe"
        router = self._tensor(f"{base}.gate.weight", (config.experts, config.hidden))
        experts = []
        for index in range(config.experts):
            names = [f"{base}.experts.{index}.w1", f"{base}.experts.{index}.w3"]
            up = self._side_by_side(names, [config.intermediate] * 2, config.hidden)
            down = self._summed(f"{base}.experts.{index}.w2", config.hidden, config.intermediate)
            experts.append(GatedMlp(self._kernels, up, down))
        return Mixture(
            self._kept(self._kernels.linear(router, None)), experts, config.experts_per_token
        )

    def _head(self, table: torch.Tensor) -> Linear:
        config = self._config
        name = "lm_head"
        shape = (config.vocab_size, config.hidden)
        start, stop = 0, config.vocab_size
        if splits_vocabulary(config, self._shard):
            start, stop = self._shard.part(config.vocab_size, "vocabulary entries")
        quantised = self._low_bit(name, *shape) if name in self._marked else None
        if quantised is not None:
            # Whatever config.json says of tying: a table has no such numbers to share.
            return self._low_bit_linear([quantised.rows(start, stop)], None)
        name = f"{name}.weight"
        if name in self._checkpoint:
            whole = self._checkpoint.take(name, shape, part=(0, start, stop))
            if not config.tied:
                return self._kept(self._kernels.linear(self._placed(whole), None))
        elif not config.tied:
            self._checkpoint.shape(name)  # raises: it is missing
        return self._kept(self._kernels.linear(table[start:stop].contiguous(), None))

    def _side_by_side(self, names: list[str], widths: list[int], inputs: int) -> Linear:
        """Several layers over the same input as one, each split by its outputs."""
        parts = [
            self._shard.part(width, f"outputs of {name}")
            for name, width in zip(names, widths, strict=True)
        ]
        whole = list(zip(names, widths, parts, strict=True))
        biases = [
            self._checkpoint.take(f"{name}.bias", (width,), part=(0, *part))
            for name, width, part in whole
            if f"{name}.bias" in self._checkpoint
        ]
        if biases and len(biases) != len(names):
            raise ModelError(f"{self._checkpoint.where(names[0])}: some of {names} have a bias")
        bias = self._placed(torch.cat(biases)) if biases else None
        low = [self._low_bit(name, width, inputs) for name, width, _ in whole]
        quantised = [
            weight.rows(*part)
            for weight, part in zip(low, parts, strict=True)
            if weight is not None
        ]
        if quantised and len(quantised) != len(names):
            raise ModelError(f"{self._checkpoint.where(names[0])}: some of {names} are quantised")
        if quantised:
            return self._low_bit_linear(quantised, bias)
        weights = [
            self._checkpoint.take(f"{name}.weight", (width, inputs), part=(0, *part))
            for name, width, part in whole
        ]
        return self._kept(self._kernels.linear(self._placed(torch.cat(weights)), bias))

    def _summed(self, name: str, outputs: int, inputs: int) -> Linear:
        """A layer split by its inputs: the ranks' results are summed, so one of them adds bias."""
        part = self._shard.part(inputs, f"inputs of {name}")
        bias = None
        if f"{name}.bias" in self._checkpoint:
            bias = self._placed(self._checkpoint.take(f"{name}.bias", (outputs,)))
        if self._shard.rank:
            bias = None
        quantised = self._low_bit(name, outputs, inputs)
        if quantised is not None:
            return self._low_bit_linear([quantised.columns(*part)], bias)
        weight = self._checkpoint.take(f"{name}.weight", (outputs, inputs), part=(1, *part))
        return self._kept(self._kernels.linear(self._placed(weight), bias))

    def _low_bit(self, name: str, outputs: int, inputs: int) -> LowBitWeight | None:
        if self._quantized is None:
            return None
        weight = self._quantized.read(self._checkpoint, name)
        if weight is not None:
            check_shape(self._checkpoint, name, weight, (outputs, inputs))
        return weight

    def _low_bit_linear(self, parts: list[LowBitWeight], bias: torch.Tensor | None) -> Linear:
        """One layer where the parts' groups agree, else one for each."""
        joined = side_by_side(parts)
        if joined is not None:
            return self._kept(self._kernels.low_bit_linear(joined, bias))
        linears, start = [], 0
        for part in parts:
            own = None if bias is None else bias[start : start + part.out_features]
            linears.append(self._kernels.low_bit_linear(part, own))
            start += part.out_features
        return self._kept(SideBySide(linears))

    def _norm(self, name: str) -> torch.Tensor:
        return self._tensor(f"{name}.weight", (self._config.hidden,))

    def _head_norm(self, name: str) -> torch.Tensor | None:
        if not self._config.query_key_norm:
            return None
        return self._tensor(f"{name}.weight", (self._config.head_size,))

    def _tensor(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        tensor = self._placed(self._checkpoint.take(name, shape))
        self._nbytes += tensor.nbytes
        return tensor

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        """In memory of our own, in the dtype and on the device of the model."""
        return tensor.to(self._device, self._dtype, copy=True).contiguous()

    def _kept(self, linear: Linear) -> Linear:
        self._nbytes += linear.nbytes
        return linear
