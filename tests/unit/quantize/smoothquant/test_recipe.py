"""A plain checkpoint becomes one of 8-bit weights: what is written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lmi.core import ModelError
from lmi.quantize.calibration import texts
from lmi.quantize.shards import ShardWriter
from lmi.quantize.smoothquant.recipe import PHASE, Recipe, write_w8a8
from tests.support.models import make_model
from tests.support.tiny_llama import write_tiny_llama
from tests.support.trained_tokenizers import byte_fallback

pytestmark = pytest.mark.slow

SMOOTH = Recipe(0.5, texts(None))


def quiet(phase: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def with_tokenizer(folder: Path) -> Path:
    """A tokenizer of 450 tokens for the models of 512."""
    byte_fallback().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_tokenizer(make_model(tmp_path_factory.mktemp("llama"), "llama"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def copy_with(source: Path, target: Path, **tensors: torch.Tensor) -> Path:
    """The model with some tensors changed; `__` in their names stands for a point."""
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    found = load_file(source / "model.safetensors")
    found |= {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    save_file(found, target / "model.safetensors", metadata={"format": "pt"})
    return target


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_every_linear_layer_is_of_8_bits_and_the_rest_as_it_was(llama: Path, out: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    write_w8a8(llama, out, SMOOTH, lambda *report: seen.append(report))
    before = load_file(llama / "model.safetensors")
    after = load_file(out / "model.safetensors")
    linears = {
        f"model.layers.{layer}.{name}"
        for layer in range(4)
        for name in (
            *(f"self_attn.{part}_proj" for part in "qkvo"),
            *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
        )
    }
    assert set(after) == set(before) | {f"{name}.weight_scale" for name in linears}
    for name, tensor in after.items():
        layer = name.rpartition(".")[0]
        if name.endswith("_scale"):
            assert tensor.dtype == torch.float32
            assert tensor.shape == (before[f"{layer}.weight"].shape[0], 1)
        elif layer in linears:
            assert tensor.dtype == torch.int8
            assert tensor.shape == before[name].shape
        elif "layernorm" in name:
            assert not torch.equal(tensor, before[name])
        else:
            assert torch.equal(tensor, before[name])
    assert seen == [(PHASE, done, 4) for done in range(5)]


def test_the_configuration_says_what_llm_compressor_says(llama: Path, out: Path) -> None:
    write_w8a8(llama, out, SMOOTH, quiet)
    found = json.loads((out / "config.json").read_text())
    quantization = found.pop("quantization_config")
    assert found == json.loads((llama / "config.json").read_text())
    assert quantization["quant_method"] == "compressed-tensors"
    assert quantization["format"] == "int-quantized"
    assert quantization["quantization_status"] == "compressed"
    assert quantization["ignore"] == ["lm_head"]
    (group,) = quantization["config_groups"].values()
    assert group["targets"] == ["Linear"]
    assert group["output_activations"] is None
    for part, strategy, dynamic in (
        ("weights", "channel", False),
        ("input_activations", "token", True),
    ):
        scheme = group[part]
        assert (scheme["num_bits"], scheme["type"], scheme["symmetric"]) == (8, "int", True)
        assert (scheme["strategy"], scheme["dynamic"]) == (strategy, dynamic)


def test_the_same_model_gives_the_same_bytes(llama: Path, out: Path, tmp_path: Path) -> None:
    write_w8a8(llama, out, SMOOTH, quiet)
    (tmp_path / "again").mkdir()
    write_w8a8(llama, tmp_path / "again", SMOOTH, quiet)
    for path in out.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_a_model_in_shards_of_16_bits_stays_in_16_bits(
    llama: Path, out: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "shards", max_shard_size="200KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").is_file()
    write_w8a8(with_tokenizer(tmp_path / "shards"), out, SMOOTH, quiet)
    kinds = {tensor.dtype for tensor in load_file(out / "model.safetensors").values()}
    assert kinds == {torch.int8, torch.bfloat16}


def test_without_smoothing_the_norms_stay(llama: Path, out: Path) -> None:
    write_w8a8(llama, out, Recipe(None, ()), quiet)
    before = load_file(llama / "model.safetensors")
    after = load_file(out / "model.safetensors")
    name = "model.layers.1.self_attn.q_proj"
    assert torch.equal(
        after["model.layers.1.input_layernorm.weight"],
        before["model.layers.1.input_layernorm.weight"],
    )
    dense = after[f"{name}.weight"] * after[f"{name}.weight_scale"]
    assert (dense - before[f"{name}.weight"]).norm() < 0.01 * dense.norm()


def test_a_weight_that_is_not_finite_is_named(llama: Path, out: Path, tmp_path: Path) -> None:
    name = "model.layers.2.mlp.down_proj.weight"
    weight = load_file(llama / "model.safetensors")[name]
    weight[3, 5] = torch.nan
    bad = copy_with(llama, tmp_path / "bad", **{name: weight})
    with pytest.raises(ModelError, match=rf"bad/model\.safetensors: {name} holds a NaN"):
        write_w8a8(bad, out, Recipe(None, ()), quiet)


def test_an_activation_that_is_not_finite_is_named(llama: Path, out: Path, tmp_path: Path) -> None:
    norm = torch.full((64,), 3e38)  # finite, and too large to be multiplied by more than 1
    bad = copy_with(
        llama, tmp_path / "bad", model__layers__1__post_attention_layernorm__weight=norm
    )
    with pytest.raises(
        ModelError, match=r"what model\.layers\.1\.post_attention_layernorm gives for the calib"
    ):
        write_w8a8(bad, out, SMOOTH, quiet)


def test_a_tokenizer_of_another_model_is_said(out: Path, tmp_path: Path) -> None:
    model = with_tokenizer(write_tiny_llama(tmp_path / "small"))
    with pytest.raises(ModelError, match=r"makes the id \d+, but .* a vocab_size of 97"):
        write_w8a8(model, out, SMOOTH, quiet)


def test_too_little_calibration_text_is_said(llama: Path, out: Path) -> None:
    with pytest.raises(ModelError, match=r"the calibration data holds \d+ tokens: expected 512"):
        write_w8a8(llama, out, Recipe(0.5, ["too short"]), quiet)


def test_windows_are_no_longer_than_the_model_can_read(
    llama: Path, out: Path, tmp_path: Path
) -> None:
    short = copy_with(llama, tmp_path / "short")
    change_config(short, max_position_embeddings=16)
    with pytest.raises(ModelError, match="expected 64 or more, which are 4 windows of 16"):
        write_w8a8(short, out, Recipe(0.5, ["too short"]), quiet)


def test_shards_are_written_as_they_fill(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "a": torch.randn((3, 5), generator=generator).bfloat16(),
        "b": torch.randint(-128, 128, (7,), generator=generator, dtype=torch.int8),
        "c": torch.randn((4, 6), generator=generator).T,
        "d": torch.tensor(2.5),
        "e": torch.empty((0, 3)),
    }
    writer = ShardWriter(tmp_path, shard_bytes=100)
    for name, tensor in tensors.items():
        writer.add(name, tensor)
        assert name in writer
    names = writer.finish()
    assert names == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    index = json.loads((tmp_path / names[-1]).read_text())
    assert index["metadata"]["total_size"] == 30 + 7 + 96 + 4
    assert set(index["weight_map"]) == set(tensors)
    found = {key: value for name in names[:2] for key, value in load_file(tmp_path / name).items()}
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
        assert name in load_file(tmp_path / index["weight_map"][name])


def test_a_name_is_written_once(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path)
    writer.add("a", torch.zeros(2))
    with pytest.raises(ValueError, match="a was written before"):
        writer.add("a", torch.zeros(2))


def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "shard-00000.partial").symlink_to("/dev/full")
    writer = ShardWriter(tmp_path)
    writer.add("a", torch.zeros(100_000))
    with pytest.raises(OSError, match="No space left on device"):
        writer.finish()
