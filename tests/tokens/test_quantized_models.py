"""A quantised checkpoint gives the tokens of the plain one with the numbers that it means."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmi.core import ModelError
from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore
from lmi.dist.messages import CoreEvent, CoreRequest
from tests.support.low_bit_files import (
    DYNAMIC_TOKENS,
    Numbers,
    compressed_config,
    gptq,
    gptq_config,
    numbers,
    packed,
    whole,
)
from tests.support.models import make_model, ragged_prompts

pytestmark = pytest.mark.slow

PROMPTS = ragged_prompts(4, 1, longest=40)
# Of the random scales: so that the dequantised weights are as wide as the plain ones.
SHRINK = 1 / 64


def write_pair(
    folder: Path, bits: int, config: dict[str, Any], pack: Callable[[Numbers], dict[str, Any]]
) -> tuple[Path, Path]:
    """Two folders: a Llama with quantised layers, and one with what they mean."""
    low, plain = folder / "low", folder / "plain"
    tensors = load_file(make_model(plain, "llama") / "model.safetensors")
    low_tensors: dict[str, torch.Tensor] = {}
    for seed, (name, tensor) in enumerate(sorted(tensors.items())):
        if "_proj" not in name:
            low_tensors[name] = tensor
            continue
        group_size = 16 if config["quant_method"] == "gptq" or bits == 4 else tensor.shape[1]
        layer = numbers(
            bits,
            outputs=tensor.shape[0],
            inputs=tensor.shape[1],
            group_size=group_size,
            symmetric=bits == 8,
            ordered=config.get("desc_act") is not True,
            seed=seed,
        )
        scales = (layer.scales * SHRINK / (1 << (bits - 4))).half().float()
        layer = Numbers(bits, layer.q, scales, layer.zeros, layer.group)
        packed_layer = pack(layer)
        means = layer.dense()
        if "weight_packed" in packed_layer:
            scales = packed_layer["weight_scale"]
            means = Numbers(bits, layer.q, scales, layer.zeros, layer.group).dense()
        tensors[name] = means
        stem = name.removesuffix(".weight")
        low_tensors |= {f"{stem}.{key}": value for key, value in packed_layer.items()}
    save_file(tensors, plain / "model.safetensors", {"format": "pt"})
    low.mkdir()
    values = json.loads((plain / "config.json").read_text())
    (low / "config.json").write_text(json.dumps({**values, "quantization_config": config}))
    found = {name: tensor.contiguous() for name, tensor in low_tensors.items()}
    save_file(found, low / "model.safetensors", {"format": "pt"})
    return low, plain


def answers(folder: Path, **options: Any) -> tuple[dict[int, list[CoreEvent]], dict[str, str]]:
    core = EngineCore(DistConfig(folder, dtype="float32", max_batch=4, threads=1, **options))
    for index, prompt in enumerate(PROMPTS):
        core.add(CoreRequest(index, prompt, max_new_tokens=12, logprobs=0))
    found: dict[int, list[CoreEvent]] = {index: [] for index in range(len(PROMPTS))}
    while core.has_work:
        for event in core.step():
            assert event.token is not None
            found[event.request_id].append(event)
    details = dict(core.info.details)
    core.close()
    return found, details


def tokens(found: dict[int, list[CoreEvent]]) -> dict[int, list[int | None]]:
    return {index: [event.token for event in events] for index, events in found.items()}


@pytest.mark.parametrize("kernels", ["plain", "auto"])
@pytest.mark.parametrize(
    ("bits", "config", "pack", "label"),
    [
        (
            4,
            gptq_config(4, desc_act=True),
            lambda layer: gptq(layer, version=1),
            "GPTQ, 4 bits",
        ),
        (
            8,
            gptq_config(8, checkpoint_format="gptq_v2"),
            lambda layer: gptq(layer, version=2),
            "GPTQ, 8 bits",
        ),
        (
            4,
            compressed_config("pack-quantized", 4, symmetric=False),
            lambda layer: packed(layer, symmetric=False),
            "compressed-tensors, W4A16",
        ),
        (
            8,
            compressed_config("int-quantized", 8, strategy="channel", group_size=None),
            lambda layer: whole(layer, symmetric=True),
            "compressed-tensors, W8A16",
        ),
    ],
    ids=["GPTQ 4 act-order", "GPTQ 8", "packed W4A16", "int8 W8A16"],
)
def test_the_tokens_are_those_of_what_the_numbers_mean(
    tmp_path: Path,
    bits: int,
    config: dict[str, Any],
    pack: Callable[[Numbers], dict[str, Any]],
    label: str,
    kernels: str,
) -> None:
    low, plain = write_pair(tmp_path, bits, config, pack)
    got, details = answers(low, kernels=kernels)
    want, _ = answers(plain, kernels=kernels)
    assert tokens(got) == tokens(want)
    assert details["weights"].endswith(label)
    assert len({token for answer in tokens(want).values() for token in answer}) > 20, "a dull model"


def test_quantised_activations_change_little(tmp_path: Path) -> None:
    config = compressed_config(
        "int-quantized", 8, strategy="channel", group_size=None, activations=DYNAMIC_TOKENS
    )
    low, plain = write_pair(tmp_path, 8, config, lambda layer: whole(layer, symmetric=True))
    got, details = answers(low, kernels="plain")
    want, _ = answers(plain, kernels="plain")
    assert details["weights"].endswith("W8A8")
    changed = [
        abs((got[index][0].logprob or 0.0) - (want[index][0].logprob or 0.0)) for index in got
    ]
    assert 0 < max(changed) < 0.5
    assert [events[0].token for events in got.values()] == [e[0].token for e in want.values()]


def test_a_method_that_is_not_known_is_named_before_weights(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "llama", "llama")
    values = json.loads((folder / "config.json").read_text())
    values["quantization_config"] = {"quant_method": "hqq", "nbits": 4}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"config\.json: .*quant_method 'hqq' is not known"):
        EngineCore(DistConfig(folder))
