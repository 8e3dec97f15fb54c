"""A quantised checkpoint that is damaged or says the wrong thing of itself is refused before it
serves, and the file and the tensor are named."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmi.core import ModelError
from lmi.dist.config import DistConfig
from lmi.dist.decoder.quantization import Quantization
from lmi.dist.model import PagedModel
from lmi.dist.quantized import reader_of
from lmi.dist.quantized.choose import check_label
from lmi.dist.quantized.layer import check_shape
from lmi.dist.runtimes import load_model
from tests.support.low_bit_files import NAME, checkpoint, numbers
from tests.support.quantised_models import FORMATS, Format, Tensors, write_pair

pytestmark = pytest.mark.slow

LAYER = "model.layers.2.self_attn.o_proj"
SWEEPS = 40  # damages of each format

Damage = Callable[[random.Random, Tensors, dict[str, Any]], None]


def _pick(chance: random.Random, tensors: Tensors) -> str:
    return chance.choice(sorted(tensors))


def lose_a_tensor(chance: random.Random, tensors: Tensors, config: dict[str, Any]) -> None:
    del tensors[_pick(chance, tensors)]


def cut_a_tensor(chance: random.Random, tensors: Tensors, config: dict[str, Any]) -> None:
    name = _pick(chance, tensors)
    dimension = chance.randrange(tensors[name].dim())
    size = tensors[name].shape[dimension]
    tensors[name] = tensors[name].narrow(dimension, 0, chance.randrange(size))


def lengthen_a_tensor(chance: random.Random, tensors: Tensors, config: dict[str, Any]) -> None:
    name = _pick(chance, tensors)
    dimension = chance.randrange(tensors[name].dim())
    tensors[name] = torch.cat([tensors[name]] * 2, dimension)


def change_a_dtype(chance: random.Random, tensors: Tensors, config: dict[str, Any]) -> None:
    name = _pick(chance, tensors)
    integers = not tensors[name].is_floating_point()
    tensors[name] = tensors[name].to(torch.float32 if integers else torch.int32)


def spoil_a_scale(chance: random.Random, tensors: Tensors, config: dict[str, Any]) -> None:
    name = "scales" if "scales" in tensors else "weight_scale"
    flat = tensors[name].clone().contiguous()
    flat.view(-1)[chance.randrange(flat.numel())] = chance.choice([torch.nan, torch.inf])
    tensors[name] = flat


def say_other_bits(chance: random.Random, tensors: Tensors, config: dict[str, Any]) -> None:
    weights = _weights(config)
    name = "bits" if "bits" in weights else "num_bits"
    weights[name] = chance.choice([bits for bits in (2, 3, 4, 8) if bits != weights[name]])


def say_another_group_size(chance: random.Random, tensors: Tensors, config: dict[str, Any]) -> None:
    _weights(config)["group_size"] = chance.choice([8, 32, 24])


def _weights(config: dict[str, Any]) -> dict[str, Any]:
    groups = config.get("config_groups")
    found: dict[str, Any] = config if groups is None else groups["group_0"]["weights"]
    return found


DAMAGES: list[Damage] = [
    lose_a_tensor,
    cut_a_tensor,
    lengthen_a_tensor,
    change_a_dtype,
    spoil_a_scale,
    say_other_bits,
    say_another_group_size,
]


def layer_of(form: Format, seed: int) -> Tensors:
    made = numbers(
        form.bits,
        group_size=form.group_size or 64,
        symmetric=form.symmetric,
        ordered=form.ordered,
        seed=seed,
    )
    return {name: tensor.contiguous() for name, tensor in form.pack(made).items()}


@pytest.mark.parametrize("name", FORMATS)
def test_no_damage_to_a_layer_is_read_as_something_else(name: str, tmp_path: Path) -> None:
    form, chance, refused = FORMATS[name], random.Random(name), 0
    for seed in range(SWEEPS):
        tensors, config = layer_of(form, seed), copy.deepcopy(form.config)
        with checkpoint(tmp_path, tensors) as file:
            whole = reader_of(config, "config.json").read(file, NAME)
        assert whole is not None
        damage = DAMAGES[seed % len(DAMAGES)]
        damage(chance, tensors, config)
        try:
            with checkpoint(tmp_path, tensors) as file:
                check_label(file, Quantization(config, "config.json"))
                found = reader_of(config, "config.json").read(file, NAME)
                if found is not None:
                    check_shape(file, NAME, found, (whole.out_features, whole.in_features))
                left = file.left_over()
        except ModelError as error:
            told = str(error)
            assert "config.json" in told or (str(tmp_path) in told and NAME in told), told
            refused += 1
            continue
        if found is None or left:  # the loader refuses what no layer took
            refused += 1
            continue
        # A tensor that the numbers do not depend on.
        assert (found.bits, found.activation_bits) == (whole.bits, whole.activation_bits)
        assert torch.equal(found.dense(), whole.dense()), damage.__name__
    assert refused > 0.8 * SWEEPS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pair(tmp_path_factory.mktemp("gptq"), "llama", FORMATS["GPTQ 4 act-order"])[0]


@pytest.fixture(params=["native", "transformers"])
def load(request: pytest.FixtureRequest) -> Callable[[Path], PagedModel]:
    def load_with(folder: Path) -> PagedModel:
        config = DistConfig(folder, dtype="float32", device="cpu", threads=1, runtime=request.param)
        return load_model(config, lambda *_: None)

    return load_with


def spoil_weights(folder: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    found = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(found, folder / "model.safetensors", {"format": "pt"})


def spoil_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values["quantization_config"].update(changes)
    path.write_text(json.dumps(values))


def forget_config(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    del values["quantization_config"]
    (folder / "config.json").write_text(json.dumps(values))


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def name_a_missing_shard(folder: Path) -> None:
    homes = dict.fromkeys(load_file(folder / "model.safetensors"), "model.safetensors")
    homes[f"{LAYER}.scales"] = "model-2.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))


def put_nan(tensors: Tensors) -> None:
    tensors[f"{LAYER}.scales"][1, 3] = torch.nan


def widen_a_layer(tensors: Tensors) -> None:
    for name in ("qweight", "scales", "qzeros"):
        tensors[f"{LAYER}.{name}"] = torch.cat([tensors[f"{LAYER}.{name}"]] * 2, 1)


def add_a_tensor(tensors: Tensors) -> None:
    tensors[f"{LAYER}.outliers"] = torch.ones(3)


def widen_everything(folder: Path) -> None:
    tensors = load_file(folder.parent / "plain" / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


CASES: list[tuple[Callable[[Path], None], str]] = [
    (lambda f: spoil_weights(f, lambda t: t.pop(f"{LAYER}.scales")), rf"{LAYER}\.scales"),
    (lambda f: spoil_weights(f, lambda t: t.pop(f"{LAYER}.qzeros")), rf"{LAYER}\.qzeros"),
    (lambda f: spoil_weights(f, lambda t: t.pop(f"{LAYER}.g_idx")), rf"{LAYER}\.g_idx is missing"),
    (lambda f: spoil_weights(f, put_nan), rf"model\.safetensors: {LAYER}\.scales .*not finite"),
    (
        lambda f: spoil_weights(f, widen_a_layer),
        rf"model\.safetensors: {LAYER} has the quantised shape \(128, 64\), .* \(64, 64\)",
    ),
    (
        lambda f: spoil_weights(f, add_a_tensor),
        rf"model\.safetensors: .*{LAYER}\.outliers|among them {LAYER}\.outliers",
    ),
    (lambda f: spoil_config(f, bits=8), r"model\.safetensors: .*_proj\.qzeros has the shape"),
    (
        lambda f: spoil_config(f, group_size=64),
        r"model\.safetensors: .*_proj\.qzeros has the shape",
    ),
    (lambda f: spoil_config(f, quant_method="awq"), r"model\.safetensors: .*_proj\.qzeros"),
    (lambda f: spoil_config(f, checkpoint_format="marlin"), r"config\.json: .* Marlin kernel"),
    (forget_config, r"model\.safetensors: .* is quantised, and nothing says how; expected quant"),
    (
        widen_everything,
        r"config\.json: .* says that the checkpoint is quantised .*no layer in it is",
    ),
    (truncate, r"model\.safetensors can't be read"),
    (name_a_missing_shard, r"model-2\.safetensors is missing, which model\.safetensors\.index"),
]


@pytest.mark.parametrize(("spoil", "message"), CASES, ids=[message for _, message in CASES])
def test_a_damaged_model_is_refused_before_it_serves(
    spoil: Callable[[Path], None],
    message: str,
    folder: Path,
    tmp_path: Path,
    load: Callable[[Path], PagedModel],
) -> None:
    shutil.copytree(folder.parent, tmp_path / "pair")
    spoil(tmp_path / "pair" / "low")
    with pytest.raises(ModelError, match=message) as error:
        load(tmp_path / "pair" / "low")
    assert str(tmp_path) in str(error.value)


def test_the_model_before_the_damage_is_loaded(
    folder: Path, load: Callable[[Path], PagedModel]
) -> None:
    assert "GPTQ, 4 bits" in dict(load(folder).facts.details)["weights"]


def test_a_file_beside_config_json_says_it_as_well(
    folder: Path, tmp_path: Path, load: Callable[[Path], PagedModel]
) -> None:
    """As auto-gptq wrote it, before config.json had a place for it."""
    shutil.copytree(folder, tmp_path / "old")
    forget_config(tmp_path / "old")
    settings = {"bits": 4, "group_size": 16, "desc_act": True, "sym": False, "damp_percent": 0.01}
    (tmp_path / "old" / "quantize_config.json").write_text(json.dumps(settings))
    assert "GPTQ, 4 bits" in dict(load(tmp_path / "old").facts.details)["weights"]
