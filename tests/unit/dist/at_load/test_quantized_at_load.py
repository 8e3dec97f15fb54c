"""Plain checkpoints whose layers become low-bit while they are read, in each runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmi.core import ModelError
from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore
from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.dist.float8 import LARGEST
from lmi.dist.messages import CoreRequest
from lmi.dist.quantized.at_load import AtLoadReader, at_load_reader, to_float8, to_int8
from tests.support.models import make_model
from tests.unit.dist.conftest import Serve

IDS = tuple(range(3, 40))
LAYERS = {"gpt2": 4 * 4, "gpt_neox": 4 * 4, "llama": 4 * 7}
Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A tiny model of a kind."""
    base = tmp_path_factory.mktemp("models")

    def make(kind: str) -> Path:
        path = base / kind
        return path if path.exists() else make_model(path, kind)

    return make


def core_of(folder: Path, **options: Any) -> EngineCore:
    return EngineCore(DistConfig(folder, dtype="float32", max_model_len=64, **options))


def answer(core: EngineCore, serve: Serve) -> list[int]:
    events = serve(core, [CoreRequest(id=1, prompt=IDS, max_new_tokens=8)])[1]
    return [event.token for event in events if event.token is not None]


def details(core: EngineCore) -> dict[str, str]:
    return dict(core.info.details)


def widened(source: Path, target: Path, quantise: Callable[[torch.Tensor], Any]) -> Path:
    """The same model with the numbers that its linear layers have once quantised, kept plain."""
    target.mkdir()
    tensors = load_file(source / "model.safetensors")
    for name, tensor in tensors.items():
        if "_proj." in name:
            tensors[name] = quantise(tensor).dense()
    save_file(tensors, target / "model.safetensors")
    (target / "config.json").write_bytes((source / "config.json").read_bytes())
    return target


@pytest.mark.parametrize(("to", "most", "error"), [(to_int8, 127, 0.5), (to_float8, LARGEST, 16)])
def test_an_output_s_largest_weight_is_the_largest_number(
    to: Callable[[torch.Tensor], Any], most: float, error: float
) -> None:
    weight = torch.randn((5, 33), generator=torch.Generator().manual_seed(1)).bfloat16()
    weight[3] = 0
    found = to(weight)
    assert found.values.float().abs().amax(dim=1).tolist() == [most, most, most, 0, most]
    assert found.scales.shape == (5, 1)
    gap = (found.dense() - weight.float()).abs() / found.scales
    assert (
        float(gap.max()) <= error * 1.00001
    )  # half the distance of two numbers, in units of the scale
    assert found.dense()[3].abs().max() == 0


@pytest.mark.parametrize(("name", "to"), [("int8", to_int8), ("fp8", to_float8)])
def test_our_decoder_computes_with_the_rounded_weights(
    folder: Folder, serve: Serve, tmp_path: Path, name: Any, to: Callable[[torch.Tensor], Any]
) -> None:
    source = folder("llama")
    core = core_of(source, quantize=name)
    assert "rounded at load" in details(core)["weights"]
    rounded = core_of(widened(source, tmp_path / "rounded", to))
    assert answer(core, serve) == answer(rounded, serve)


@pytest.mark.parametrize("name", ["int8", "fp8"])
@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama"])
def test_transformers_layers_are_rounded_as_they_are_read(
    folder: Folder, serve: Serve, kind: str, name: Any
) -> None:
    core = core_of(folder(kind), quantize=name, runtime="transformers")
    found = details(core)["weights"]
    assert "rounded at load" in found
    assert f"in {LAYERS[kind]} layers" in found  # all but the output layer
    if kind == "llama":
        assert answer(core, serve) == answer(core_of(folder(kind), quantize=name), serve)
    else:
        assert len(answer(core, serve)) == 8


def test_a_layer_as_long_as_wide_that_is_stored_transposed_is_turned(tmp_path: Path) -> None:
    weight = torch.randn((6, 6), generator=torch.Generator().manual_seed(0))
    save_file({"a.weight": weight}, tmp_path / "model.safetensors")
    reader = at_load_reader(DistConfig(tmp_path, quantize="int8"))
    assert isinstance(reader, AtLoadReader)
    with Checkpoint(tmp_path) as checkpoint:
        found = reader.read(checkpoint, "a", transposed=True)
    assert torch.allclose(found.dense(), weight.T, atol=0.02)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.tensor([[1.0, torch.nan]]), "not finite"),
        (torch.tensor([[1.0, -torch.inf]]), "not finite"),
        (torch.ones(3), "plain matrix"),
        (torch.ones((2, 2), dtype=torch.int8), "plain matrix"),
    ],
)
def test_a_weight_that_can_t_be_rounded_is_refused_by_name(
    tmp_path: Path, weight: torch.Tensor, message: str
) -> None:
    save_file({"x.proj.weight": weight}, tmp_path / "model.safetensors")
    reader = at_load_reader(DistConfig(tmp_path, quantize="fp8"))
    assert reader is not None
    with (
        Checkpoint(tmp_path) as checkpoint,
        pytest.raises(ModelError, match=rf"model.safetensors: x.proj.weight .*{message}"),
    ):
        reader.read(checkpoint, "x.proj")
