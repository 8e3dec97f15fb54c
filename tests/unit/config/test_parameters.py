"""What the model server tells its worker is read as what its users have said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from lmi.config import ConfigErrors, ModelSpec, resolve
from lmi.config.parameters import full_key
from tests.unit.config.harness import ALL


def _spec(
    folder: Path, told: Mapping[str, str], text: str = "", environ: Mapping[str, str] | None = None
) -> ModelSpec:
    (folder / "serving.properties").write_text(text)
    return resolve(folder, environ or {}, parameters=told, installed=ALL).spec


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("dtype", "option.dtype"),
        ("job_queue_size", "job_queue_size"),
        ("batch_size", "batch_size"),
        ("retry_threshold", "retry_threshold"),
        ("normalize", "option.normalize"),
        ("modelName", "option.modelName"),
        ("minWorkers", "minWorkers"),
        ("gpu.minWorkers", "gpu.minWorkers"),
        ("entryPoint", "option.entryPoint"),
        ("engine", "engine"),
        ("never_heard_of", "option.never_heard_of"),
    ],
)
def test_a_key_gets_its_prefix_back(short: str, full: str) -> None:
    assert full_key(short) == full


def test_the_map_beats_the_file_and_the_environment(folder: Path) -> None:
    told = {"dtype": "bf16", "job_queue_size": "7"}
    spec = _spec(folder, told, "option.dtype=fp16", {"ARGS_JOB_QUEUE_SIZE": "9"})
    assert (spec.dtype, spec.job_queue_size) == ("bf16", 7)


def test_a_platforms_own_variable_beats_the_map(folder: Path) -> None:
    environ = {"SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "33"}
    assert _spec(folder, {"predict_timeout": "5"}, "", environ).predict_timeout == 33


@pytest.mark.parametrize(
    "told",
    [
        {"rolling_batch": "disable"},
        {"rolling_batch": "disable", "async_mode": "true", "max_rolling_batch_size": "32"},
        {"engine": "Python", "pipeline_parallel_degree": "1", "handler": "handle"},
        {"minWorkers": "1", "maxWorkers": "1", "load_on_devices": "0", "failed": "1"},
    ],
)
def test_what_the_server_adds_by_itself_changes_nothing(folder: Path, told: dict[str, str]) -> None:
    assert _spec(folder, told) == _spec(folder, {})


def test_a_rolling_batch_that_somebody_chose_is_used(folder: Path) -> None:
    assert _spec(folder, {"rolling_batch": "lmi-dist"}).engine == "lmi-dist"
    assert _spec(folder, {"rolling_batch": "disable"}, "option.rolling_batch=disable").code


def test_the_server_may_not_put_another_engine_in_place_of_the_users(folder: Path) -> None:
    told = {"rolling_batch": "vllm", "mpi_mode": "false"}
    assert _spec(folder, told, "option.rolling_batch=lmi-dist").engine == "lmi-dist"


def test_the_degree_that_the_server_gives_devices_for_is_used(folder: Path) -> None:
    assert _spec(folder, {"tensor_parallel_degree": "2"}).tensor_parallel_degree == 2


def test_an_error_names_the_line_where_there_is_one_and_the_server_where_not(folder: Path) -> None:
    for text, source in (("option.dtpye=x", "serving.properties:1"), ("", "the model server")):
        with pytest.raises(ConfigErrors) as caught:
            _spec(folder, {"dtpye": "x"}, text)
        (problem,) = caught.value.problems
        assert problem.source == source
        assert "did you mean option.dtype?" in problem.want
