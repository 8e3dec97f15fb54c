"""FP8 checkpoints of each format, whole and broken, and what our decoder makes of them."""

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
from lmi.dist.float8 import FLOAT8, LARGEST, holds_nan, narrow
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.messages import CoreRequest
from lmi.dist.quantized import reader_of
from tests.support.low_bit_files import NAME, checkpoint
from tests.unit.dist.conftest import Serve

Tensors = dict[str, torch.Tensor]
OUT, IN = 40, 72  # no multiples of a block


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rounded(weight: torch.Tensor, block: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """e4m3 numbers and (blocks of outputs, blocks of inputs) scales, by plain loops."""
    outputs, inputs = weight.shape
    height, width = block
    scales = torch.empty(-(-outputs // height), -(-inputs // width))
    values = torch.empty_like(weight)
    for row in range(scales.shape[0]):
        for column in range(scales.shape[1]):
            part = (
                slice(row * height, (row + 1) * height),
                slice(column * width, (column + 1) * width),
            )
            scales[row, column] = weight[part].abs().amax() / LARGEST
            values[part] = weight[part] / scales[row, column]
    return narrow(values), scales


def meaning(values: torch.Tensor, scales: torch.Tensor, block: tuple[int, int]) -> torch.Tensor:
    outputs, inputs = values.shape
    whole = scales.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return values.float() * whole[:outputs, :inputs]


def compressed(strategy: str, **weights: Any) -> dict[str, Any]:
    own = {"type": "float", "num_bits": 8, "symmetric": True, "strategy": strategy, **weights}
    rows = {"type": "float", "num_bits": 8, "strategy": "token", "dynamic": True}
    group = {"targets": ["Linear"], "weights": own, "input_activations": rows}
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": group},
        "kv_cache_scheme": {"type": "float", "num_bits": 8, "strategy": "tensor", "dynamic": False},
    }


BLOCK = (16, 32)
# By a name: config.json's part, the block that shares a scale, the scales' name and shape.
FORMATS: dict[str, tuple[dict[str, Any], tuple[int, int], str, tuple[int, ...] | None]] = {
    "compressed-tensors, tensor": (compressed("tensor"), (OUT, IN), "weight_scale", (1,)),
    "compressed-tensors, channel": (compressed("channel"), (1, IN), "weight_scale", None),
    "compressed-tensors, block": (
        compressed("block", block_structure=list(BLOCK)),
        BLOCK,
        "weight_scale",
        None,
    ),
    "fp8, blocks": (
        {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": list(BLOCK)},
        BLOCK,
        "weight_scale_inv",
        None,
    ),
    "fp8, tensor": (
        {"quant_method": "fp8", "activation_scheme": "static"},
        (OUT, IN),
        "weight_scale",
        (),
    ),
    "fbgemm_fp8": ({"quant_method": "fbgemm_fp8"}, (1, IN), "weight_scale", None),
    "modelopt": ({"quant_method": "modelopt", "quant_algo": "FP8"}, (OUT, IN), "weight_scale", ()),
    "modelopt, channel": (
        {"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"},
        (1, IN),
        "weight_scale",
        (OUT,),
    ),
}


def layer(name: str) -> tuple[dict[str, Any], Tensors, torch.Tensor]:
    """config.json's part, the layer's tensors, and what they mean."""
    config, block, scale_name, shape = FORMATS[name]
    values, scales = rounded(normal(OUT, IN), block)
    wanted = meaning(values, scales, block)
    stored = scales if shape is None else scales.reshape(shape)
    return config, {"weight": values, scale_name: stored}, wanted


def read(folder: Path, config: dict[str, Any], tensors: Tensors) -> LowBitWeight | None:
    with checkpoint(folder, tensors) as opened:
        return reader_of(config, "config.json").read(opened, NAME)


@pytest.mark.parametrize("name", FORMATS)
def test_a_layer_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    config, tensors, wanted = layer(name)
    tensors["input_scale"] = torch.tensor(0.5)
    found = read(tmp_path, config, tensors)
    assert found is not None
    assert found.values.dtype == FLOAT8
    assert torch.equal(found.dense(), wanted)
    assert "FP8" in reader_of(config, "config.json").label
    assert read(tmp_path, config, {"weight": normal(4, 4)}) is None


def test_scales_of_blocks_may_be_powers_of_two(tmp_path: Path) -> None:
    config, tensors, _ = layer("fp8, blocks")
    powers = tensors["weight_scale_inv"].to(torch.float8_e8m0fnu)
    found = read(tmp_path, config, {**tensors, "weight_scale_inv": powers})
    assert found is not None
    assert torch.equal(found.dense(), meaning(tensors["weight"], powers.float(), BLOCK))


def _nan(tensors: Tensors) -> None:
    codes = tensors["weight"].view(torch.uint8)
    codes[3, 5] = 0xFF


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_nan, "weight holds a number that is not finite"),
        (lambda t: t.pop("weight_scale_inv"), "lacks the tensor .*weight_scale"),
        (
            lambda t: t.update(weight_scale_inv=t["weight_scale_inv"][:-1]),
            r"weight_scale_inv has the shape \(2, 3\), expected \(3, 3\)",
        ),
        (
            lambda t: t["weight_scale_inv"].fill_(torch.inf),
            "weight_scale_inv holds a scale that is not finite",
        ),
        (
            lambda t: t.update(weight_scale_inv=torch.ones((3, 3), dtype=torch.int32)),
            "weight_scale_inv is torch.int32, expected a floating-point type",
        ),
        (lambda t: t.update(input_scale=torch.tensor(torch.nan)), "input_scale holds a scale"),
        (
            lambda t: t.update(weight=t["weight"].float().to(torch.float8_e5m2)),
            "weight is F8_E5M2: of the FP8 formats only F8_E4M3",
        ),
        (lambda t: t.update(weight=t["weight"][0]), "weight has the shape .*expected two sizes"),
    ],
)
def test_a_broken_layer_is_refused_with_its_file_and_tensor(
    tmp_path: Path, change: Callable[[Tensors], object], message: str
) -> None:
    config, tensors, _ = layer("fp8, blocks")
    change(tensors)
    with pytest.raises(ModelError, match=rf"^{tmp_path}.*{message}"):
        read(tmp_path, config, tensors)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "fp8", "activation_scheme": "other"}, "activation_scheme 'other'"),
        ({"quant_method": "fp8", "fmt": "e5m2"}, "fmt 'e5m2'"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, r"\[128\].*two whole numbers"),
        ({"quant_method": "fp8", "weight_block_size": [0, 128]}, "two whole numbers"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "quant_algo 'NVFP4'"),
        (compressed("group", group_size=32), "strategy 'group'"),
        (compressed("block"), "None.*two whole numbers"),
        ({**compressed("tensor"), "format": "int-quantized"}, "type 'float'"),
        (
            {**compressed("tensor"), "kv_cache_scheme": {"num_bits": 8, "type": "int"}},
            "kv_cache_scheme: type 'int'",
        ),
    ],
)
def test_a_setting_that_is_not_known_is_refused_by_name(
    config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=rf"^config.json.*{message}"):
        reader_of(config, "config.json")


def test_whole_numbers_under_a_label_of_fp8_are_refused(tmp_path: Path) -> None:
    config, tensors, _ = layer("compressed-tensors, channel")
    whole = {**tensors, "weight": tensors["weight"].float().clamp(-127, 127).to(torch.int8)}
    with pytest.raises(ModelError, match=r"weight does not hold what .* W8A8 .FP8."):
        read(tmp_path, config, whole)


def test_numbers_beyond_448_become_448_and_nan_stays() -> None:
    far = torch.tensor([449.0, 1e30, torch.inf, -torch.inf, 447.9, 2**-10, 3 * 2**-11, torch.nan])
    found = narrow(far)
    assert found.float()[:7].tolist() == [448, 448, 448, -448, 448, 0, 2**-9]
    assert found.float()[7].isnan()
    assert [holds_nan(found), holds_nan(found[:7])] == [True, False]


@pytest.mark.parametrize("runtime", ["native", "transformers"])
def test_a_model_in_fp8_answers_as_its_widened_copy(
    llama: Path, serve: Serve, tmp_path: Path, runtime: Any
) -> None:
    fp8, wide = tmp_path / "fp8", tmp_path / "wide"
    tensors, widened = load_file(llama / "model.safetensors"), {}
    stored: Tensors = {}
    for name, tensor in tensors.items():
        if "_proj." not in name:
            stored[name] = widened[name] = tensor
            continue
        values, scales = rounded(tensor, (16, 32))
        stored[name] = values
        stored[name.replace("weight", "weight_scale_inv")] = scales
        widened[name] = meaning(values, scales, (16, 32))
    config = json.loads((llama / "config.json").read_text())
    for folder, content in ((fp8, stored), (wide, widened)):
        folder.mkdir()
        save_file(content, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config))
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [16, 32]}
    (fp8 / "config.json").write_text(json.dumps(config))
    options: dict[str, Any] = {"dtype": "float32", "runtime": runtime, "max_model_len": 64}
    low, plain = (EngineCore(DistConfig(folder, **options)) for folder in (fp8, wide))
    request = CoreRequest(1, tuple(range(3, 40)), max_new_tokens=10)
    found, wanted = ([e.token for e in serve(core, [request])[1]] for core in (low, plain))
    assert found == wanted
    assert "widened block by block" in dict(low.info.details)["weights"]
