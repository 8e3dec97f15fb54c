"""How a handler is run comes of its configuration, and of the devices that are here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from lmi.config import resolve
from lmi.core import ConfigError
from lmi.custom import FunctionSpec, Seat
from lmi.engines import BoundSpec
from lmi.launch.bind import needs_files
from lmi.launch.function import function_spec, stock_handler
from lmi.launch.preflight import preflight
from lmi.launch.runnable import runnable

HANDLER = "def handle(inputs): ...\n"
NONE: Mapping[str, str] = {"CUDA_VISIBLE_DEVICES": ""}


def _bound(folder: Path, text: str = "", code: str | None = HANDLER) -> BoundSpec:
    (folder / "serving.properties").write_text(text)
    if code is not None:
        (folder / "model.py").write_text(code)
    return BoundSpec(resolve(folder, {}, installed=runnable()).spec, None)


def _function(
    folder: Path, text: str = "", gpus: str = "", seat: Seat | None = None
) -> FunctionSpec:
    return function_spec(_bound(folder, text), {"CUDA_VISIBLE_DEVICES": gpus}, seat)


def test_without_options_one_worker_takes_one_request_at_a_time(tmp_path: Path) -> None:
    found = _function(tmp_path)
    assert (found.workers, found.max_workers, found.batch_size) == (1, 1, 1)
    assert found.seats == (Seat(-1),)
    assert found.folder == tmp_path
    assert (found.entry_point, found.fallback, found.handler) == (None, None, "handle")
    assert found.python == sys.executable


# A line of the file, and what it changes for the workers.
ARRIVES: dict[str, object] = {
    "minWorkers=3": ("workers", 3),
    "maxWorkers=3": ("max_workers", 3),
    "cpu.minWorkers=3": ("workers", 3),
    "cpu.maxWorkers=4": ("max_workers", 4),
    "max_idle_time=7": ("max_idle", 7.0),
    "batch_size=8": ("batch_size", 8),
    "max_batch_delay=20": ("max_batch_delay", 0.02),
    "option.pythonExecutable=/usr/bin/python3": ("python", "/usr/bin/python3"),
    "option.env=A=b, C=d": ("environ", {"A": "b", "C": "d"}),
    "option.predict_timeout=5": ("predict_timeout", 5.0),
    "option.model_loading_timeout=5": ("loading_timeout", 5.0),
    "retry_threshold=9": ("restart_limit", 9),
}


@pytest.mark.parametrize("line", ARRIVES)
def test_an_option_arrives(tmp_path: Path, line: str) -> None:
    name, value = ARRIVES[line]  # type: ignore[misc]
    assert getattr(_function(tmp_path, line), name) == value


def test_another_function_may_be_the_handler(tmp_path: Path) -> None:
    bound = _bound(tmp_path, "option.handler=answer", "def answer(inputs): ...\n")
    assert function_spec(bound, NONE).handler == "answer"


def test_the_handler_is_told_every_option_as_text(tmp_path: Path) -> None:
    text = "option.my_own=x\noption.dtype=anything\nbatch_size=4\noption.tensor_parallel_degree=1"
    found = _function(tmp_path, f"{text}\noption.model_id=org/model\noption.env=SECRET=b")
    assert found.properties == {
        "my_own": "x",
        "dtype": "anything",
        "batch_size": "4",
        "tensor_parallel_degree": 1,
        "model_id": "org/model",
        "engine": "Python",
        "rolling_batch": "disable",
    }


def test_there_is_a_place_on_every_gpu_with_workers_on_each(tmp_path: Path) -> None:
    found = _function(tmp_path, "gpu.minWorkers=2\ncpu.minWorkers=5", "4,5")
    assert found.seats == (Seat(0), Seat(1))
    assert (found.workers, found.max_workers) == (4, 4)


def test_devices_may_be_named(tmp_path: Path) -> None:
    assert _function(tmp_path, "load_on_devices=1", "4,5").seats == (Seat(1),)
    assert _function(tmp_path, "load_on_devices=-1", "4,5").seats == (Seat(-1),)
    with pytest.raises(ConfigError, match=r"load_on_devices='2' .*there are 2 GPUs"):
        _function(tmp_path, "load_on_devices=2", "4,5")


def test_gpus_that_share_a_model_share_a_place(tmp_path: Path) -> None:
    found = _function(tmp_path, "option.tensor_parallel_degree=2", "4,5,6,7,8")
    assert [seat.environ["CUDA_VISIBLE_DEVICES"] for seat in found.seats] == ["4,5", "6,7"]
    with pytest.raises(ConfigError, match=r"option\.tensor_parallel_degree='2'"):
        _function(tmp_path, "option.tensor_parallel_degree=2", "4")


def test_beside_others_that_somebody_else_starts_there_is_one_worker_in_its_place(
    tmp_path: Path,
) -> None:
    text = "minWorkers=3\nmaxWorkers=4\nbatch_size=8\nmax_batch_delay=100"
    found = _function(tmp_path, text, seat=Seat(1))
    assert (found.workers, found.max_workers, found.seats) == (1, 1, (Seat(1),))
    assert found.batch_size == 8
    assert found.max_batch_delay < 0.1  # the batch was gathered already


@pytest.mark.parametrize(
    ("file", "stock"),
    [
        ("model.skops", "djl_python.sklearn_handler"),
        ("model.bst", "djl_python.xgboost_handler"),
        ("config.json", "djl_python.huggingface"),
    ],
)
def test_a_model_without_code_has_its_stock_handler(tmp_path: Path, file: str, stock: str) -> None:
    (tmp_path / file).write_text('{"architectures": ["BertForMaskedLM"]}')
    bound = _bound(tmp_path, "", None)
    assert stock_handler(bound.spec) == stock
    found = function_spec(bound, NONE)
    assert found.entry_point is None
    assert found.fallback == f"lmi.custom.stock.{stock.split('.')[1].removesuffix('_handler')}"


def test_formatters_stand_beside_the_stock_handler_of_a_classic_model(tmp_path: Path) -> None:
    (tmp_path / "model.skops").touch()
    bound = _bound(tmp_path, "", "def my_formatter(x): ...\n")
    found = function_spec(bound, NONE)
    assert (found.entry_point, found.fallback) == (None, "lmi.custom.stock.sklearn")


def test_a_stock_handler_that_is_named_goes_before_the_folders_code(tmp_path: Path) -> None:
    (tmp_path / "model.skops").touch()
    found = _function(tmp_path, "option.entryPoint=djl_python.sklearn_handler")
    assert (found.entry_point, found.fallback) == ("lmi.custom.stock.sklearn", None)


@pytest.mark.parametrize(
    ("text", "code", "needed"),
    [
        ("option.model_id=org/model", HANDLER, False),
        ("option.model_id=s3://bucket/model", HANDLER, True),
        ("option.model_id=org/model\noption.task=fill-mask", None, True),
        ("option.task=fill-mask", None, False),
    ],
)
def test_a_hub_id_is_fetched_for_a_stock_handler_only(
    tmp_path: Path, text: str, code: str | None, needed: bool
) -> None:
    assert needs_files(_bound(tmp_path, text, code).spec) is needed


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("option.entryPoint=missing.py", "there is no file"),
        ("option.entryPoint=../up.py", "expected a file inside the model's folder"),
        ("option.entryPoint=https://host/model.py", "code is not fetched from the network"),
        ("option.entryPoint=djl_python.sagemaker\noption.task=fill-mask", "pickled objects"),
        ("option.entryPoint=djl_python.nothing\noption.task=fill-mask", "no such stock handler"),
    ],
)
def test_a_handler_that_is_not_there_is_refused_before_anything_starts(
    tmp_path: Path, text: str, want: str
) -> None:
    (tmp_path / "serving.properties").write_text(text)
    with pytest.raises(ConfigError, match=want) as refused:
        preflight(resolve(tmp_path, {}, installed=runnable()))
    assert refused.value.source == "serving.properties:1"
