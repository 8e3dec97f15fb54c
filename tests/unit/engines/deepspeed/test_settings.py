"""DeepSpeed's options and its configuration file become settings, or are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmi.core import ConfigError
from lmi.engines.deepspeed.settings import Settings, settings


def of(folder: Path, degree: int = 1, file: object = None, **options: Any) -> Settings:
    if file is not None:
        (folder / "ds.json").write_text(json.dumps(file))
        options["deepspeed_config_path"] = "ds.json"
    return settings(options, folder, degree)


def refused(folder: Path, *parts: str, degree: int = 1, file: object = None, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        of(folder, degree, file, **options)
    for part in parts:
        assert part in str(caught.value)
    return str(caught.value)


def test_nothing_said_is_the_defaults(tmp_path: Path) -> None:
    assert of(tmp_path) == Settings()


@pytest.mark.parametrize(
    ("option", "value", "changed"),
    [
        ("max_tokens", 77, {"max_tokens": 77}),
        ("low_cpu_mem_usage", False, {"low_cpu_mem_usage": False}),
        ("enable_cuda_graph", True, {"enable_cuda_graph": True}),
        ("return_tuple", False, {"return_tuple": False}),
        ("use_custom_all_reduce", False, {"sums": "deepspeed"}),
        ("use_custom_all_reduce", True, {}),
        ("triangular_masking", True, {}),
        ("training_mp_size", 1, {}),
    ],
)
def test_an_option_is_a_setting(
    tmp_path: Path, option: str, value: object, changed: dict[str, Any]
) -> None:
    assert of(tmp_path, **{option: value}) == Settings(**changed)


def test_settings_travel_to_a_worker_whole() -> None:
    own = Settings(77, False, True, False, True, "deepspeed")
    assert Settings.of(own.plain()) == own


def test_attention_that_is_not_triangular_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "option.triangular_masking=", "causal", triangular_masking=False)


@pytest.mark.parametrize("option", [{"checkpoint": "ds_inference_config.json"}])
def test_a_sharded_checkpoint_is_refused_with_the_way_out(
    tmp_path: Path, option: dict[str, Any]
) -> None:
    refused(tmp_path, "option.checkpoint=", "pickles", "safetensors", **option)


def test_a_degree_of_training_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "option.training_mp_size='2'", "expected 1", training_mp_size=2)


def test_the_file_says_what_options_leave_open(tmp_path: Path) -> None:
    file = {
        "max_out_tokens": 99,
        "enable_cuda_graph": True,
        "replace_with_kernel_inject": False,
        "tensor_parallel": {"tp_size": 2},
        "triangular_masking": True,
        "replace_method": "auto",
    }
    found = of(tmp_path, 2, file, return_tuple=False)
    assert found == Settings(
        max_tokens=99, enable_cuda_graph=True, return_tuple=False, kernel_inject=False
    )


def test_the_file_and_an_option_may_say_the_same(tmp_path: Path) -> None:
    assert of(tmp_path, 1, {"max_tokens": 5}, max_tokens=5).max_tokens == 5


@pytest.mark.parametrize(
    ("file", "parts"),
    [
        ({"max_tokens": 99}, ("option.max_tokens=", "says 99", "keep one")),
        ({"max_tokens": 0}, ("max_tokens is 0", "whole number from 1")),
        ({"max_tokens": True}, ("max_tokens is True",)),
        ({"enable_cuda_graph": 1}, ("enable_cuda_graph is 1", "true or false")),
        ({"mp_size": 4}, ("mp_size is 4", "option.tensor_parallel_degree", "2")),
        ({"tensor_parallel": {"tp_size": 2, "mpu": None}}, ("tensor_parallel is",)),
        ({"dtype": "fp16"}, ("option.dtype",)),
        ({"max_out_token": 7}, ("'max_out_token'",)),
        ({"checkpoint": "x.json"}, ("checkpoint is", "pickles")),
        ({"injection_policy": {"Block": "mlp"}}, ("injection_policy is",)),
        ({"triangular_masking": False}, ("triangular_masking is False", "expected True")),
        ([], ("expected a JSON object",)),
    ],
)
def test_what_is_wrong_in_the_file_is_named(
    tmp_path: Path, file: object, parts: tuple[str, ...]
) -> None:
    message = refused(tmp_path, *parts, degree=2, file=file, max_tokens=55)
    assert "ds.json" in message


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text("{")
    refused(tmp_path, "expected JSON", deepspeed_config_path="ds.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "can't be read", deepspeed_config_path="ds.json")


def test_a_path_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text("{}")
    inner = tmp_path / "model"
    inner.mkdir()
    refused(inner, "in the model's folder", deepspeed_config_path="../ds.json")
