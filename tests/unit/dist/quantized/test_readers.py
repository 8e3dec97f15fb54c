"""Quantised checkpoints mean what their makers meant; what is wrong with one is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmi.core import ModelError
from lmi.dist.kernels.low_bit import LowBitWeight
from lmi.dist.quantized import reader_of
from tests.support.low_bit_files import (
    DYNAMIC_TOKENS,
    NAME,
    Numbers,
    awq,
    checkpoint,
    compressed_config,
    gptq,
    gptq_config,
    numbers,
    packed,
    whole,
)

pytestmark = pytest.mark.slow

WHERE = "folder/config.json"


def read(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> LowBitWeight:
    with checkpoint(folder, tensors) as file:
        weight = reader_of(config, WHERE).read(file, NAME)
        assert file.left_over() == []
    assert weight is not None
    return weight


def check(weight: LowBitWeight, layer: Numbers) -> None:
    assert (weight.bits, weight.values.shape) == (layer.bits, layer.q.shape)
    assert weight.values.dtype == (torch.int8 if layer.bits == 8 else torch.uint8)
    for tensor in (weight.values, weight.scales, weight.zeros):
        assert tensor is None or tensor.is_contiguous()
    assert torch.equal(weight.dense(), layer.dense())


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("ordered", [True, False], ids=["in runs", "act-order"])
@pytest.mark.parametrize("version", [1, 2])
def test_gptq_is_read_in_both_versions(
    tmp_path: Path, bits: int, ordered: bool, version: int
) -> None:
    layer = numbers(bits, ordered=ordered)
    assert {0, (1 << bits) - 1} <= set(layer.zeros.flatten().tolist()) or bits == 8
    config = gptq_config(bits, checkpoint_format="gptq" if version == 1 else "gptq_v2")
    weight = read(tmp_path, config, gptq(layer, version=version))
    check(weight, layer)
    assert (weight.group is None) is ordered
    assert weight.zeros is not None
    assert weight.activation_bits is None


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_a_symmetric_gptq_layer_needs_no_zero_points(tmp_path: Path, bits: int) -> None:
    layer = numbers(bits, symmetric=True)
    weight = read(tmp_path, gptq_config(bits, sym=True, desc_act=False), gptq(layer, version=1))
    check(weight, layer)
    assert weight.zeros is None


def test_one_group_may_hold_all_inputs_and_the_last_fewer(tmp_path: Path) -> None:
    layer = numbers(4, group_size=64)
    weight = read(tmp_path, gptq_config(group_size=-1), gptq(layer, version=1))
    check(weight, layer)
    assert weight.scales.shape == (32, 1)
    layer = numbers(4, group_size=48)
    check(read(tmp_path, gptq_config(group_size=48), gptq(layer, version=1)), layer)


def test_gptq_without_an_order_has_groups_in_runs(tmp_path: Path) -> None:
    layer = numbers(4)
    tensors = gptq(layer, version=2)
    del tensors["g_idx"]
    check(read(tmp_path, gptq_config(checkpoint_format="gptq_v2"), tensors), layer)


def test_an_order_of_inputs_that_is_lost_is_missed(tmp_path: Path) -> None:
    tensors = gptq(numbers(4, ordered=False), version=1)
    del tensors["g_idx"]
    with pytest.raises(ModelError, match=rf"{tmp_path}.*{NAME}.g_idx is missing: with desc_act"):
        read(tmp_path, gptq_config(desc_act=True), tensors)


@pytest.mark.parametrize("pattern", [NAME, r"+:.*up_proj$", r"^model\.layers\.0\.mlp\.up_proj$"])
def test_a_gptq_layer_may_have_settings_of_its_own(tmp_path: Path, pattern: str) -> None:
    layer = numbers(8, group_size=32, ordered=False)
    own = {"bits": 8, "group_size": 32, "desc_act": True, "sym": False}
    config = gptq_config(4, dynamic={"-:.*o_proj": {}, pattern: own, ".*": {"bits": 3}})
    check(read(tmp_path, config, gptq(layer, version=1)), layer)
    with pytest.raises(ModelError, match=r"dynamic: '.*': bits 5 .*expected 3 or 4 or 8"):
        read(tmp_path, gptq_config(dynamic={pattern: {"bits": 5}}), gptq(layer, version=1))


@pytest.mark.parametrize("group_size", [16, 64])
def test_awq_is_read_in_its_order_of_outputs(tmp_path: Path, group_size: int) -> None:
    layer = numbers(4, group_size=group_size)
    config = {"quant_method": "awq", "bits": 4, "group_size": group_size, "version": "gemm"}
    check(read(tmp_path, config, awq(layer)), layer)
    old_names = {"quant_method": "awq", "w_bit": 4, "q_group_size": group_size}
    check(read(tmp_path, old_names, awq(layer)), layer)


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "zero points"])
@pytest.mark.parametrize("ordered", [True, False], ids=["in runs", "act-order"])
def test_packed_compressed_tensors_are_read(
    tmp_path: Path, bits: int, symmetric: bool, ordered: bool
) -> None:
    # Sizes that fill no whole word.
    layer = numbers(bits, outputs=21, inputs=48, symmetric=symmetric, ordered=ordered)
    tensors = packed(layer, symmetric=symmetric, ordered=ordered)
    layer = Numbers(bits, layer.q, tensors["weight_scale"], layer.zeros, layer.group)
    weight = read(tmp_path, compressed_config("pack-quantized", bits, symmetric=symmetric), tensors)
    check(weight, layer)
    assert (weight.zeros is None) is symmetric
    assert (weight.group is None) is ordered


def test_an_order_that_was_never_made_is_none(tmp_path: Path) -> None:
    layer = numbers(4, symmetric=True)
    tensors = packed(layer, symmetric=True)
    tensors["weight_g_idx"] = torch.full((64,), -1, dtype=torch.int32)
    tensors["weight_scale"] = layer.scales
    check(read(tmp_path, compressed_config("pack-quantized", 4), tensors), layer)


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "zero points"])
@pytest.mark.parametrize("activations", [None, DYNAMIC_TOKENS], ids=["W8A16", "W8A8"])
def test_int8_compressed_tensors_are_read_with_what_becomes_of_activations(
    tmp_path: Path, symmetric: bool, activations: dict[str, Any] | None
) -> None:
    layer = numbers(8, group_size=64, symmetric=symmetric)
    config = compressed_config(
        "int-quantized",
        8,
        strategy="channel",
        group_size=None,
        symmetric=symmetric,
        activations=activations,
    )
    weight = read(tmp_path, config, whole(layer, symmetric=symmetric))
    check(weight, layer)
    assert weight.activation_bits == (8 if activations else None)


def test_a_scale_for_the_whole_tensor_is_every_rows(tmp_path: Path) -> None:
    layer = numbers(8, group_size=64, symmetric=True)
    scale = layer.scales[:1]
    layer = Numbers(8, layer.q, scale.expand(32, 1), layer.zeros, layer.group)
    tensors = {**whole(layer, symmetric=True), "weight_scale": scale[0]}
    config = compressed_config("int-quantized", 8, strategy="tensor", group_size=None)
    check(read(tmp_path, config, tensors), layer)


def test_the_most_exact_target_decides_between_groups(tmp_path: Path) -> None:
    layer = numbers(8, symmetric=True)
    tensors = packed(layer, symmetric=True)
    tensors["weight_scale"] = layer.scales
    config = compressed_config("pack-quantized", 4)
    for targets in ([NAME], [r"re:.*up_proj$"]):
        better = compressed_config("pack-quantized", 8)["config_groups"]["group_0"]
        config["config_groups"]["group_1"] = {**better, "targets": targets}
        check(read(tmp_path, config, tensors), layer)
    config["config_groups"] = {"group_1": {**better, "targets": ["re:.*down_proj"]}}
    with pytest.raises(ModelError, match=rf"no group of config_groups has the layer {NAME}"):
        read(tmp_path, config, tensors)


@pytest.mark.parametrize(
    "config",
    [
        gptq_config(),
        {"quant_method": "awq", "bits": 4, "group_size": 16},
        compressed_config("pack-quantized", 4),
        compressed_config("int-quantized", 8),
    ],
    ids=lambda config: f"{config['quant_method']} {config.get('format', '')}",
)
def test_a_layer_that_is_not_quantised_is_none(tmp_path: Path, config: dict[str, Any]) -> None:
    with checkpoint(tmp_path, {"weight": torch.ones(4, 4)}) as file:
        assert reader_of(config, WHERE).read(file, NAME) is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "bitsandbytes"}, "quant_method 'bitsandbytes' .*expected compressed-t"),
        ({}, "quant_method None"),
        (gptq_config(bits=2), "bits 2 .*expected 3 or 4 or 8"),
        (gptq_config(bits=True), "bits True"),
        (gptq_config(group_size=0), "group_size 0 .*expected a whole number from 1, or -1"),
        (gptq_config(checkpoint_format="marlin"), "checkpoint_format 'marlin': .*Marlin kernel"),
        (gptq_config(is_marlin_format=True), "is_marlin_format True: .*Marlin kernel"),
        (gptq_config(checkpoint_format="hybrid"), "format 'hybrid' .*expected gptq or gptq_v2"),
        (gptq_config(format="bitblas"), "checkpoint_format 'bitblas': .*BitBLAS"),
        (gptq_config(pack_dtype="int16"), "pack_dtype 'int16' .*expected int32"),
        (gptq_config(dynamic=["lm_head"]), r"dynamic is \['lm_head'\]: expected patterns"),
        (gptq_config(dynamic={"+:(": {}}), r"dynamic: '\+:\(' is no regular expression"),
        (gptq_config(dynamic={"lm_head": 8}), "dynamic: 'lm_head' is 8: expected an object"),
        ({"quant_method": "awq", "bits": 4, "version": "GEMV"}, "version 'gemv': .*autoawq"),
        ({"quant_method": "awq", "bits": 4, "version": "marlin"}, "version 'marlin': .*Marlin"),
        ({"quant_method": "awq", "bits": 4, "version": "x"}, "version 'x' .*expected gemm"),
        (compressed_config("nvfp4-pack-quantized", 8), "group_0: format 'nvfp4-pack-quantized'"),
        (compressed_config("int-quantized", 4), "group_0.weights: num_bits 4 .*expected 8"),
        (compressed_config("pack-quantized", 5), "num_bits 5 .*expected 3 or 4 or 8"),
        (compressed_config("pack-quantized", 4, strategy="block"), "strategy 'block'"),
        (compressed_config("pack-quantized", 4, group_size=None), "group_size None"),
        (
            compressed_config("int-quantized", 8, activations={**DYNAMIC_TOKENS, "dynamic": False}),
            "input_activations: dynamic False .*expected true",
        ),
        (
            compressed_config(
                "int-quantized", 8, activations={**DYNAMIC_TOKENS, "strategy": "tensor"}
            ),
            "input_activations: strategy 'tensor' .*expected token",
        ),
        (
            compressed_config("pack-quantized", 4, activations=DYNAMIC_TOKENS),
            "input_activations: num_bits 8 .*none beside packed weights",
        ),
        (
            {**compressed_config("int-quantized", 8), "kv_cache_scheme": {"type": "int"}},
            "kv_cache_scheme",
        ),
        (
            {
                **compressed_config("int-quantized", 8),
                "sparsity_config": {"format": "sparse-24-bitmask"},
            },
            "sparsity_config.format 'sparse-24-bitmask'",
        ),
        ({"quant_method": "compressed-tensors"}, "config_groups None"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_known_is_refused_by_name(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=rf"^{WHERE}.*{message}"):
        reader_of(config, WHERE)


Change = Callable[[dict[str, torch.Tensor]], Any]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["scales"].__setitem__((1, 2), torch.nan), r"scales holds a scale that is not"),
        (lambda t: t["scales"].__setitem__((1, 2), torch.inf), r"scales holds a scale that is not"),
        (lambda t: t.pop("scales"), r"lacks the tensor .*up_proj\.scales"),
        (lambda t: t.pop("qzeros"), r"lacks the tensor .*up_proj\.qzeros"),
        (lambda t: t.update(scales=t["scales"][:3]), r"scales has the shape \(3, 32\)"),
        (lambda t: t.update(scales=t["scales"].int()), r"scales is torch\.int32, expected a fl"),
        (lambda t: t.update(qzeros=t["qzeros"][:, :3]), r"qzeros has the shape \(4, 3\)"),
        (lambda t: t.update(qweight=t["qweight"].long()), r"qweight is torch\.int64, expected"),
        (lambda t: t.update(qweight=t["qweight"].flatten()), r"qweight has the shape \(256,\)"),
        (lambda t: t.update(g_idx=t["g_idx"][:5]), r"g_idx has the shape \(5,\), expected \(64,\)"),
        (lambda t: t["g_idx"].__setitem__(3, 4), r"g_idx names groups 0 to 4 of 4"),
    ],
)
def test_a_broken_gptq_layer_is_named_with_its_file(
    tmp_path: Path, change: Change, message: str
) -> None:
    tensors = gptq(numbers(4), version=1)
    change(tensors)
    with pytest.raises(ModelError, match=rf"{tmp_path}.*{message}"):
        read(tmp_path, gptq_config(), tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["weight_scale"].__setitem__((0, 0), torch.nan), r"weight_scale holds a scale"),
        (lambda t: t.pop("weight_scale"), r"lacks the tensor .*weight_scale"),
        (lambda t: t.pop("weight_shape"), r"lacks the tensor .*weight_shape"),
        (lambda t: t.pop("weight_zero_point"), r"lacks the tensor .*weight_zero_point"),
        (lambda t: t["weight_shape"].__setitem__(1, 900), r"weight_packed has the shape"),
        (lambda t: t["weight_shape"].fill_(-1), r"weight_shape is \[-1, -1\]"),
    ],
)
def test_a_broken_packed_layer_is_named_with_its_file(
    tmp_path: Path, change: Change, message: str
) -> None:
    tensors = packed(numbers(4), symmetric=False)
    change(tensors)
    with pytest.raises(ModelError, match=rf"{tmp_path}.*{message}"):
        read(tmp_path, compressed_config("pack-quantized", 4, symmetric=False), tensors)


def test_an_int8_layer_without_its_scales_is_no_plain_weight(tmp_path: Path) -> None:
    tensors = whole(numbers(8), symmetric=True)
    del tensors["weight_scale"]
    with pytest.raises(ModelError, match=rf"{tmp_path}.*lacks the tensor {NAME}.weight_scale"):
        read(tmp_path, compressed_config("int-quantized", 8), tensors)
