"""What `init_inference` is told, and what of its side effects is taken back."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lmi.core import ModelError
from lmi.engines.deepspeed import call
from lmi.engines.deepspeed.injection import POLICIES
from lmi.engines.deepspeed.rebuild import DeepSpeed
from lmi.engines.deepspeed.settings import Settings
from tests.support.deepspeed_bodies import config_of
from tests.support.models import make_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("deepspeed") / "llama", "llama")


def model_of(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().requires_grad_(False)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(torch.tensor([[3, 10, 17]])).logits
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_is_not_divided_computes_the_same_bits(
    folder: Path, dtype: torch.dtype
) -> None:
    model = model_of(folder, dtype)
    before = logits(model)
    rotary = model.model.rotary_emb.inv_freq.clone()
    default = torch.get_default_dtype()
    rebuilt = call.init_inference(model, dtype=dtype, device="cpu")
    assert rebuilt.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(rebuilt.model.rotary_emb.inv_freq, rotary)
    assert torch.equal(logits(rebuilt), before)
    assert torch.get_default_dtype() == default


def test_a_parameter_that_is_kept_wide_stays_so(folder: Path) -> None:
    model = model_of(folder, torch.bfloat16)
    norm = model.model.norm
    norm.weight.data = norm.weight.data.float() + 1e-4
    kept = norm.weight.clone()
    call.init_inference(model, dtype=torch.bfloat16, device="cpu")
    assert torch.equal(norm.weight, kept)


class Told:
    """In the place of `deepspeed.init_inference`: notes its arguments, and is as noisy."""

    def __init__(self, error: Exception | None = None) -> None:
        self.arguments: dict[str, Any] = {}
        self._error = error

    def __call__(self, model: Any, **arguments: Any) -> Any:
        print("AutoTP: ", [])
        logging.getLogger().setLevel(logging.CRITICAL)
        torch.set_default_dtype(torch.float64)
        self.arguments = arguments
        if self._error is not None:
            raise self._error
        self.module = model
        return self


def test_its_arguments_are_those_of_the_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = Told()
    monkeypatch.setattr(call.library("cpu"), "init_inference", told)
    own = Settings(max_tokens=77, return_tuple=False, enable_cuda_graph=True, kernel_inject=True)
    level = logging.getLogger().level
    library = DeepSpeed(config_of(folder), own, CPU)
    _, details = library.rebuild(model_of(folder), lambda *_: None)
    assert told.arguments == {
        "dtype": torch.float32,
        "tensor_parallel": {"tp_size": 1},
        "replace_with_kernel_inject": False,
        "return_tuple": False,
        "max_out_tokens": 77,
        "keep_module_on_host": False,
    }
    assert capsys.readouterr().out == ""
    assert logging.getLogger().level == level
    assert torch.get_default_dtype() == torch.float32
    said = dict(details)
    assert said["kernel injection"] == "no: DeepSpeed's kernels are for GPUs"
    assert "each step has its own" in said["DeepSpeed's CUDA graphs"]


def test_kernels_are_asked_for_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    monkeypatch.setattr(call.library("cpu"), "init_inference", told)
    further = {"max_out_tokens": 9}
    arguments = {"dtype": torch.float16, "device": "cpu", "degree": 2, "inject": True}
    call.init_inference(torch.nn.Linear(2, 2), **arguments, further=further)
    assert told.arguments == {
        "dtype": torch.float16,
        "tensor_parallel": {"tp_size": 2},
        "replace_with_kernel_inject": True,
        "max_out_tokens": 9,
    }


def test_what_deepspeed_does_not_know_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(AssertionError("AutoTP not supported for model."))
    monkeypatch.setattr(call.library("cpu"), "init_inference", told)
    with pytest.raises(ModelError, match=r"type llama: AutoTP not supported for model\."):
        call.init_inference(model_of(folder), dtype=torch.float32, device="cpu", degree=2)
    assert torch.get_default_dtype() == torch.float32


def test_a_model_that_comes_back_wrong_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(Told):
        def __call__(self, model: Any, **arguments: Any) -> Any:
            rows = model.model.layers[0].self_attn.o_proj.weight.data
            rows.copy_(rows.roll(1, dims=1))
            self.module = model
            return self

    monkeypatch.setattr(call.library("cpu"), "init_inference", Wrong())
    library = DeepSpeed(config_of(folder), Settings(), CPU)
    with pytest.raises(ModelError, match="divides a model of type llama wrongly"):
        library.rebuild(model_of(folder), lambda *_: None)


def test_the_table_of_kernels_is_that_of_the_installed_release() -> None:
    call.library("cpu")
    found = set()
    for policy in call.submodule("deepspeed.module_inject.replace_policy").replace_policies:
        policy(None)
        classes = policy._orig_layer_class
        for cls in classes if isinstance(classes, list) else [classes]:
            if cls is not None:
                found.add(cls.__module__.split(".")[-2])
    assert found == POLICIES
