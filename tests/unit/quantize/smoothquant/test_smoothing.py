"""The arithmetic: factors, gains that 16 bits can't hold exactly, and an unchanged function."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import transformers as tf

from lmi.quantize.smoothquant.families import FAMILIES, Group
from lmi.quantize.smoothquant.int8 import quantise
from lmi.quantize.smoothquant.smoothing import divided_gain, factors, smooth
from tests.support.models import CONFIGS, save_random

pytestmark = pytest.mark.slow


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).norm() / want.norm())


def test_a_factor_is_the_quotient_of_the_ranges_around_a_mean_of_one() -> None:
    activations, weights = torch.tensor([100.0, 1.0, 4.0]), torch.tensor([0.01, 1.0, 0.25])
    wanted = activations**0.7 / weights**0.3
    assert torch.allclose(
        factors(activations, weights, 0.7), wanted / wanted.log().mean().exp(), rtol=1e-5
    )


def test_alpha_1_makes_the_channels_of_the_activations_equal_and_0_those_of_the_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    activations = torch.rand(32, generator=generator) * 9 + 1
    weights = torch.rand(32, generator=generator) * 9 + 1
    evened = activations / factors(activations, weights, 1.0)
    assert torch.allclose(evened, evened[0].expand(32))
    evened = weights * factors(activations, weights, 0.0)
    assert torch.allclose(evened, evened[0].expand(32))


def test_a_channel_that_nothing_is_known_of_stays() -> None:
    found = factors(torch.tensor([0.0, 8.0, 2.0]), torch.tensor([1.0, 0.0, 1.0]), 0.5)
    assert found[:2].tolist() == [1.0, 1.0]
    assert torch.equal(factors(torch.zeros(3), torch.ones(3), 0.5), torch.ones(3))


def test_factors_stay_within_what_half_precision_holds() -> None:
    activations = torch.tensor([1e-30, 1.0, 1.0, 1e30])
    found = factors(activations, torch.ones(4), 1.0)
    assert found.amax() <= 2**13
    assert found.amin() >= 2**-13


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_what_a_gain_was_really_divided_by_is_told(dtype: torch.dtype, offset: float) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(64, generator=generator).to(dtype).float()
    weight[0] = -offset  # a gain of nothing stays nothing
    wanted = torch.rand(64, generator=generator) * 99 + 0.01
    stored, real = divided_gain(weight, wanted, dtype, offset)
    assert torch.equal(stored, stored.to(dtype).float())
    assert torch.allclose((stored + offset) * real, weight + offset, rtol=1e-6, atol=1e-7)
    assert stored[0] + offset == 0.0


def test_a_gain_that_would_round_to_nothing_stays() -> None:
    stored, real = divided_gain(torch.tensor([0.0]), torch.tensor([1e6]), torch.bfloat16, 1.0)
    assert (stored.item(), real.item()) == (0.0, 1.0)


def _config(family: str) -> tf.PreTrainedConfig:
    if family == "granite":
        return tf.GraniteConfig(**{k: v for k, v in CONFIGS["llama"]().to_dict().items()})
    return CONFIGS["gemma3" if family == "gemma3_text" else family]()


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_smoothing_leaves_the_function_as_it_is(
    tmp_path: Path, family: str, dtype: torch.dtype
) -> None:
    """Also with gains in 16 bits: their rounding is in the columns."""
    save_random(tmp_path, _config(family), tf.AutoModelForCausalLM)
    model = tf.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    model = model.to(dtype).float()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        before = model(ids).logits
    generator = torch.Generator().manual_seed(2)
    known = FAMILIES[family]
    names = {f"{group.norm}.weight" for group in known.groups}
    layers = [
        module
        for module in model.modules()
        if names <= {name for name, _ in module.named_parameters()}
    ]
    assert len(layers) == 4
    for layer in layers:
        tensors = {name: tensor.data for name, tensor in layer.named_parameters()}
        largest = {
            group.norm: 10
            ** (3 * torch.rand(tensors[f"{group.norm}.weight"].shape[0], generator=generator) - 1)
            for group in known.groups
        }
        dtypes = dict.fromkeys(tensors, dtype)
        found = smooth(tensors, dtypes, known.groups, largest, 0.5, known.offset)
        for group in known.groups:
            assert not torch.equal(found[f"{group.norm}.weight"], tensors[f"{group.norm}.weight"])
        layer.load_state_dict(found, strict=False)
    with torch.no_grad():
        after = model(ids).logits
    assert relative(after, before) < 2e-5


def test_a_layer_left_out_of_its_group_would_be_seen(tmp_path: Path) -> None:
    """The test above tests something."""
    generator = torch.Generator().manual_seed(3)
    tensors = {
        "norm.weight": torch.ones(8),
        "a.weight": torch.randn(8, 8, generator=generator),
        "b.weight": torch.randn(8, 8, generator=generator),
    }
    largest = {"norm": torch.rand(8, generator=generator) + 0.1}
    dtypes = dict.fromkeys(tensors, torch.float32)
    found = smooth(tensors, dtypes, (Group("norm", ("a",)),), largest, 0.5, 0.0)
    x = torch.randn(8, generator=generator)
    assert torch.allclose(found["a.weight"] @ (found["norm.weight"] * x), tensors["a.weight"] @ x)
    assert not torch.allclose(
        found["b.weight"] @ (found["norm.weight"] * x), tensors["b.weight"] @ x
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_quantised_weights_are_within_half_a_step(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(4)
    least = -3 if dtype == torch.float16 else -9  # half precision ends early
    weight = torch.randn((16, 64), generator=generator) * torch.logspace(least, 2, 16)[:, None]
    weight[3] = 0
    values, scales = quantise(weight, dtype)
    assert values.dtype == torch.int8
    assert scales.shape == (16, 1)
    assert scales.dtype == dtype
    error = (values.float() * scales.float() - weight).abs()
    # A rounded scale can leave the largest number of a row a little outside.
    assert (error <= scales.float() * 0.5 + weight.abs().amax(1, keepdim=True) * 2**-8).all()
    assert int(values.min()) >= -127
    assert not values[3].any()
    assert torch.isfinite(scales).all()
    assert bool((scales > 0).all())
    assert math.isclose(float(values.abs().amax(1).float().mean()), 127, abs_tol=9)
