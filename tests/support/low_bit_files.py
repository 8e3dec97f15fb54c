"""Quantised layers as other libraries write them, packed by plain loops, for the readers' tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from lmi.dist.decoder.checkpoint import Checkpoint

WORD = 32
NAME = "model.layers.0.mlp.up_proj"
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the output that stands at each place of a word


@dataclass(frozen=True, slots=True)
class Numbers:
    """A quantised layer: q (out, in) and zeros (out, groups) unsigned, scales (out, groups), the
    group of each input."""

    bits: int
    q: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor
    group: torch.Tensor

    def dense(self) -> torch.Tensor:
        """(out, in): what it means."""
        return (self.q - self.zeros[:, self.group]).float() * self.scales[:, self.group]


def numbers(
    bits: int,
    *,
    outputs: int = 32,
    inputs: int = 64,
    group_size: int = 16,
    symmetric: bool = False,
    ordered: bool = True,
    seed: int = 0,
) -> Numbers:
    """Random ones. symmetric: zero points in the middle. ordered: groups are runs of inputs."""
    generator = torch.Generator().manual_seed(seed)
    groups = -(-inputs // group_size)
    group = torch.arange(inputs) // group_size
    if not ordered:
        group = group[torch.randperm(inputs, generator=generator)]
    zeros = torch.randint(0, 1 << bits, (outputs, groups), generator=generator)
    return Numbers(
        bits,
        torch.randint(0, 1 << bits, (outputs, inputs), generator=generator),
        # Exact in half precision, in which files keep them.
        (torch.rand((outputs, groups), generator=generator) + 0.5).half().float(),
        torch.full_like(zeros, 1 << (bits - 1)) if symmetric else zeros,
        group,
    )


def _word(value: int) -> int:
    """An unsigned word as int32 has it."""
    return value - (1 << WORD) if value >= 1 << (WORD - 1) else value


def pack_words(rows: torch.Tensor, bits: int) -> torch.Tensor:
    """(rows, numbers) -> int32: whole numbers only in each word, the first lowest."""
    per_word = WORD // bits
    packed = []
    for row in rows.tolist():
        words = [
            sum(
                number << (bits * place)
                for place, number in enumerate(row[first : first + per_word])
            )
            for first in range(0, len(row), per_word)
        ]
        packed.append([_word(word) for word in words])
    return torch.tensor(packed, dtype=torch.int32)


def pack_stream(rows: torch.Tensor, bits: int) -> torch.Tensor:
    """(rows, numbers) -> int32: one number of many bits per row, cut into words, lowest first."""
    packed = []
    for row in rows.tolist():
        whole = sum(number << (bits * place) for place, number in enumerate(row))
        count = len(row) * bits // WORD
        packed.append([_word((whole >> (WORD * place)) % (1 << WORD)) for place in range(count)])
    return torch.tensor(packed, dtype=torch.int32)


def gptq(layer: Numbers, *, version: int) -> dict[str, torch.Tensor]:
    """As auto-gptq (version 1) and gptqmodel (2) write it."""
    stored = (layer.zeros - (1 if version == 1 else 0)) % (1 << layer.bits)
    return {
        "qweight": pack_stream(layer.q, layer.bits).T,
        "qzeros": pack_stream(stored.T, layer.bits),
        "scales": layer.scales.T.half(),
        "g_idx": layer.group.int(),
    }


def awq(layer: Numbers) -> dict[str, torch.Tensor]:
    """As autoawq writes it."""

    def pack(rows: torch.Tensor) -> torch.Tensor:
        shuffled = rows.unflatten(1, (-1, len(AWQ_ORDER)))[:, :, list(AWQ_ORDER)].flatten(1)
        return pack_words(shuffled, 4)

    return {
        "qweight": pack(layer.q.T),
        "qzeros": pack(layer.zeros.T),
        "scales": layer.scales.T.half(),
    }


def packed(layer: Numbers, *, symmetric: bool, ordered: bool = True) -> dict[str, torch.Tensor]:
    """compressed-tensors' pack-quantized."""
    tensors = {
        "weight_packed": pack_words(layer.q, layer.bits),
        "weight_shape": torch.tensor(layer.q.shape),
        "weight_scale": layer.scales.bfloat16().float(),
    }
    if not symmetric:
        tensors["weight_zero_point"] = pack_words(layer.zeros.T, layer.bits).T
    if not ordered:
        tensors["weight_g_idx"] = layer.group.int()
    return tensors


def whole(layer: Numbers, *, symmetric: bool) -> dict[str, torch.Tensor]:
    """compressed-tensors' int-quantized."""
    tensors = {"weight": (layer.q - 128).to(torch.int8), "weight_scale": layer.scales}
    if not symmetric:
        tensors["weight_zero_point"] = (layer.zeros - 128).to(torch.int8)
    return tensors


def gptq_config(bits: int = 4, group_size: int = 16, **more: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": bits, "group_size": group_size, **more}


def compressed_config(
    kind: str,
    bits: int,
    *,
    strategy: str = "group",
    group_size: int | None = 16,
    symmetric: bool = True,
    activations: dict[str, Any] | None = None,
    targets: tuple[str, ...] = ("Linear",),
) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": kind,
        "config_groups": {
            "group_0": {
                "targets": list(targets),
                "weights": {
                    "num_bits": bits,
                    "type": "int",
                    "symmetric": symmetric,
                    "strategy": strategy,
                    "group_size": group_size,
                    "dynamic": False,
                },
                "input_activations": activations,
                "output_activations": None,
            }
        },
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
    }


DYNAMIC_TOKENS: dict[str, Any] = {
    "num_bits": 8,
    "type": "int",
    "symmetric": True,
    "strategy": "token",
    "dynamic": True,
}


def checkpoint(folder: Path, tensors: dict[str, torch.Tensor], name: str = NAME) -> Checkpoint:
    """A checkpoint of one layer, open."""
    found = {f"{name}.{suffix}": tensor.contiguous() for suffix, tensor in tensors.items()}
    save_file(found, folder / "model.safetensors")
    return Checkpoint(folder)
