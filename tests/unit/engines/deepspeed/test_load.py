"""What LMI-Dist and DeepSpeed are told for a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmi.config import resolve
from lmi.core import ConfigError
from lmi.dist.config import DistConfig
from lmi.engines import BoundSpec, cards
from lmi.engines.deepspeed.load import plan
from lmi.engines.deepspeed.settings import Settings


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def told(folder: Path, **options: Any) -> tuple[DistConfig, Settings]:
    lines = ["engine=DeepSpeed", "option.rolling_batch=deepspeed", "option.model_id=/m"]
    lines += [f"option.{key}={value}" for key, value in options.items()]
    (folder / "serving.properties").write_text("\n".join(lines))
    resolution = resolve(folder, {}, installed=frozenset({"deepspeed"}))
    return plan(BoundSpec(resolution.spec, folder))


def test_the_card_names_its_libraries() -> None:
    assert cards()["deepspeed"].requires == ("torch", "transformers", "deepspeed")


def test_on_a_processor_the_default_is_exact(tmp_path: Path) -> None:
    config, own = told(tmp_path)
    assert (config.dtype, config.max_batch, config.max_model_len) == ("float32", 4, None)
    assert (config.runtime, config.tensor_parallel) == ("transformers", 1)
    assert own == Settings()


def test_on_gpus_the_default_is_the_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert told(tmp_path, tensor_parallel_degree="max")[0].dtype == "auto"
    assert told(tmp_path, tensor_parallel_degree="max")[0].tensor_parallel == 2


@pytest.mark.parametrize(
    ("option", "value", "field", "wanted"),
    [
        ("dtype", "bf16", "dtype", "bfloat16"),
        ("dtype", "int8", "quantize", "int8"),
        ("quantize", "dynamic_int8", "quantize", "int8"),
        ("max_rolling_batch_size", 9, "max_batch", 9),
        ("max_tokens", 99, "max_model_len", 99),
        ("max_model_len", 88, "max_model_len", 88),
        ("tensor_parallel_degree", 2, "tensor_parallel", 2),
        ("collective_timeout", 7, "collective_timeout", 7.0),
        ("enable_prefix_caching", "true", "prefix_cache", True),
        ("threads", 1, "threads", 1),
    ],
)
def test_an_option_arrives(
    tmp_path: Path, option: str, value: object, field: str, wanted: object
) -> None:
    assert getattr(told(tmp_path, **{option: value})[0], field) == wanted


def test_the_shorter_of_two_limits_holds(tmp_path: Path) -> None:
    assert told(tmp_path, max_tokens=50, max_model_len=80)[0].max_model_len == 50
    assert told(tmp_path, max_tokens=90, max_model_len=80)[0].max_model_len == 80


def test_int8_weights_are_computed_with_in_the_default_dtype(tmp_path: Path) -> None:
    assert told(tmp_path, dtype="int8")[0].dtype == "float32"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"dtype": "int8", "quantize": "smoothquant"}, "option.dtype"),
        ({"runtime": "native"}, "option.runtime"),
        ({"triangular_masking": "false"}, "option.triangular_masking"),
    ],
)
def test_what_can_not_be_is_refused_by_name(
    tmp_path: Path, options: dict[str, str], name: str
) -> None:
    with pytest.raises(ConfigError, match=name):
        told(tmp_path, **options)
