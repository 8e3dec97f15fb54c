"""Tiny models of any family in two folders: with quantised layers, and with what these mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

from tests.support.low_bit_files import (
    DYNAMIC_TOKENS,
    Numbers,
    awq,
    compressed_config,
    gptq,
    gptq_config,
    numbers,
    packed,
    whole,
)
from tests.support.models import make_model

Tensors = dict[str, torch.Tensor]


class Format(NamedTuple):
    """A kind of checkpoint: its settings, and how a layer's numbers become its tensors."""

    bits: int
    config: dict[str, Any]
    pack: Callable[[Numbers], Tensors]
    symmetric: bool = False
    group_size: int | None = 16  # None: all inputs

    @property
    def ordered(self) -> bool:
        """Whether groups are runs of inputs."""
        return self.config.get("desc_act") is not True


def _channel(**more: Any) -> dict[str, Any]:
    return compressed_config("int-quantized", 8, strategy="channel", group_size=None, **more)


FORMATS: Final = {
    "GPTQ 3": Format(3, gptq_config(3), lambda layer: gptq(layer, version=1)),
    "GPTQ 4 act-order": Format(
        4, gptq_config(4, desc_act=True), lambda layer: gptq(layer, version=1)
    ),
    "GPTQ 8": Format(
        8, gptq_config(8, checkpoint_format="gptq_v2"), lambda layer: gptq(layer, version=2)
    ),
    "AWQ": Format(4, {"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm"}, awq),
    "packed W4A16": Format(
        4,
        compressed_config("pack-quantized", 4, symmetric=False),
        lambda layer: packed(layer, symmetric=False),
    ),
    "int8 W8A16": Format(8, _channel(), lambda layer: whole(layer, symmetric=True), True, None),
    "W8A8": Format(
        8,
        _channel(activations=DYNAMIC_TOKENS),
        lambda layer: whole(layer, symmetric=True),
        True,
        None,
    ),
}


def write_pair(folder: Path, family: str, form: Format, *, head: bool = False) -> tuple[Path, Path]:
    """Two folders: `family` with quantised layers, and with what they mean. head: the output layer
    is quantised too."""
    low, plain = folder / "low", folder / "plain"
    make_model(plain, family)
    linears = _linears(plain, head=head)
    tensors = load_file(plain / "model.safetensors")
    low_tensors: Tensors = {}
    for seed, (name, tensor) in enumerate(sorted(tensors.items())):
        stem = name.removesuffix(".weight")
        if not name.endswith(".weight") or stem not in linears:
            low_tensors[name] = tensor
            continue
        inputs_first = linears[stem]
        layer = _numbers(form, tensor.T if inputs_first else tensor, seed)
        quantised = form.pack(layer)
        scales = quantised.get("weight_scale", layer.scales)  # as they are in the file
        means = Numbers(form.bits, layer.q, scales, layer.zeros, layer.group).dense()
        tensors[name] = (means.T if inputs_first else means).contiguous()
        low_tensors |= {f"{stem}.{key}": value for key, value in quantised.items()}
    save_file(tensors, plain / "model.safetensors", {"format": "pt"})
    low.mkdir()
    values = json.loads((plain / "config.json").read_text())
    (low / "config.json").write_text(json.dumps({**values, "quantization_config": form.config}))
    found = {name: tensor.contiguous() for name, tensor in low_tensors.items()}
    save_file(found, low / "model.safetensors", {"format": "pt"})
    return low, plain


def _numbers(form: Format, weight: torch.Tensor, seed: int) -> Numbers:
    """weight (out, in), to the nearest; only the inputs' groups are random."""
    inputs = weight.shape[1]
    size = form.group_size or inputs
    chance = numbers(
        form.bits, outputs=1, inputs=inputs, group_size=size, ordered=form.ordered, seed=seed
    )
    order = torch.argsort(chance.group, stable=True)
    runs = weight[:, order].unflatten(1, (-1, size))
    top, middle = (1 << form.bits) - 1, 1 << (form.bits - 1)
    if form.symmetric:
        scales = (runs.abs().amax(-1) / (middle - 1)).half().float()
        zeros = torch.full(scales.shape, middle)
    else:
        low, high = runs.amin(-1), runs.amax(-1)
        scales = ((high - low) / top).half().float()
        zeros = (-low / scales).round().long().clamp(0, top)
    q = (weight / scales[:, chance.group]).round().long() + zeros[:, chance.group]
    return Numbers(form.bits, q.clamp(0, top), scales, zeros, chance.group)


def _linears(folder: Path, *, head: bool) -> dict[str, bool]:
    """The linear layers, by their names in the file; whether their weights are (in, out)."""
    config = tf.AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = tf.AutoModelForCausalLM.from_config(config)
    output = model.get_output_embeddings()
    return {
        name: isinstance(module, Conv1D)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and (head or module is not output)
    }
