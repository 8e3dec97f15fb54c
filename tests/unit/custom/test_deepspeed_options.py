"""What DeepSpeed's handler takes of the options, and what it refuses by name, at the check too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmi.config import ConfigErrors, resolve
from lmi.core import ConfigError
from lmi.custom.stock.deepspeed_options import TASKS, DeepSpeedOptions
from lmi.launch.function import stock_handler
from lmi.launch.preflight import preflight

INSTALLED = frozenset({"python", "deepspeed", "lmi-dist"})


def test_nothing_said_is_one_rank_in_the_devices_own_type() -> None:
    found = DeepSpeedOptions.read({})
    assert (found.degree, found.dtype) == (1, None)
    assert found.triangular_masking
    assert found.settings.max_tokens == 1024


def test_options_are_read_as_lmi_has_them(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(json.dumps({"replace_with_kernel_inject": False}))
    found = DeepSpeedOptions.read(
        {
            "model_dir": str(tmp_path),
            "tensor_parallel_degree": 2,
            "dtype": "bf16",
            "max_tokens": "77",
            "triangular_masking": "false",
            "return_tuple": "false",
            "deepspeed_config_path": "ds.json",
            "quantize": "none",
            "training_mp_size": "1",
        }
    )
    assert (found.degree, found.dtype, found.triangular_masking) == (2, "bfloat16", False)
    assert (found.settings.max_tokens, found.settings.return_tuple) == (77, False)
    assert found.settings.kernel_inject is False
    assert DeepSpeedOptions.read({"tensor_parallel_degree": "max"}).degree == "max"


@pytest.mark.parametrize("task", [*TASKS, "ner", "translation_en_to_fr", "sentiment-analysis"])
def test_each_task_of_texts_is_deepspeeds(task: str) -> None:
    DeepSpeedOptions.read({"task": task})


REFUSED = {
    "task": ("image-classification", "DeepSpeed's tasks are"),
    "quantize": ("smoothquant", r"option\.rolling_batch=deepspeed"),
    "load_in_8bit": ("true", "not quantised"),
    "device_map": ("auto", r"see option\.tensor_parallel_degree"),
    "dtype": ("int8", "fp32, fp16 or bf16"),
    "checkpoint": ("ds.json", "safetensors"),
    "training_mp_size": ("2", "safetensors"),
    "deepspeed_config_path": ("missing.json", "can't be read"),
    "tensor_parallel_degree": ("0", "a whole number from 1, or max"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_by_name(name: str, tmp_path: Path) -> None:
    value, want = REFUSED[name]
    with pytest.raises(ConfigError, match=want) as caught:
        DeepSpeedOptions.read({"model_dir": str(tmp_path), name: value})
    assert (caught.value.option, caught.value.value) == (f"option.{name}", value)


def test_ranks_that_share_a_model_do_not_stream() -> None:
    DeepSpeedOptions.read({"enable_streaming": "true"})
    with pytest.raises(ConfigError, match=r"option\.enable_streaming='true'"):
        DeepSpeedOptions.read({"enable_streaming": "true", "tensor_parallel_degree": "2"})


def folder(path: Path, *lines: str, architecture: str = "BertForMaskedLM") -> Path:
    (path / "config.json").write_text(
        json.dumps({"architectures": [architecture], "model_type": "bert"})
    )
    (path / "model.safetensors").touch()
    (path / "serving.properties").write_text("\n".join(("engine=DeepSpeed", *lines)))
    return path


def test_the_check_chooses_the_handler_and_refuses_what_it_would_refuse(tmp_path: Path) -> None:
    right = resolve(folder(tmp_path), {}, installed=INSTALLED)
    preflight(right)
    assert stock_handler(right.spec) == "djl_python.deepspeed"
    assert right.spec.code is not None
    wrong = resolve(folder(tmp_path, "option.training_mp_size=4"), {}, installed=INSTALLED)
    with pytest.raises(ConfigErrors, match=r"option\.training_mp_size='4'.*properties:2") as caught:
        preflight(wrong)
    assert "safetensors" in str(caught.value)


def test_the_folders_own_handler_goes_before_deepspeeds(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def handle(inputs): ...\n")
    spec = resolve(folder(tmp_path), {}, installed=INSTALLED).spec
    assert (spec.has_custom_handler, spec.entry_point) == (True, None)
