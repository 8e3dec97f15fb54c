"""Which of several values wins, and that the others stay on record."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmi.config import Setting, resolve
from lmi.config.resolution import Overridden
from tests.unit.config.harness import HERE, Resolved

PREDICT = "option.predict_timeout"
QUEUE = "job_queue_size"
REQUEST = "max_request_size"


def _setting(settings: tuple[Setting, ...], key: str) -> Setting:
    (found,) = (setting for setting in settings if setting.key == key)
    return found


def test_each_layer_beats_the_ones_below_it(resolved: Resolved) -> None:
    environ = {
        "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": "2",
        "OPTION_PREDICT_TIMEOUT": "4",
        "PREDICT_TIMEOUT": "5",
    }
    file = f"{PREDICT}=3"
    layers = [
        (file, environ, {PREDICT: "1"}, f"--set {PREDICT}"),
        (file, environ, {}, "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS"),
        (file, {name: environ[name] for name in list(environ)[1:]}, {}, "serving.properties:1"),
        ("", {name: environ[name] for name in list(environ)[1:]}, {}, "OPTION_PREDICT_TIMEOUT"),
        ("", {"PREDICT_TIMEOUT": "5"}, {}, "PREDICT_TIMEOUT"),
    ]
    for expected, (text, variables, flags, origin) in enumerate(layers, 1):
        found = resolved(text, variables, flags)
        assert found.spec.predict_timeout == expected
        assert _setting(found.settings, PREDICT).origin == origin
    assert resolved().spec.predict_timeout == 240


def test_every_value_that_lost_is_on_record_best_first(resolved: Resolved) -> None:
    environ = {"OPTION_DTYPE": "bf16"}
    found = resolved("option.dtype=fp16\n\noption.dtype=fp32", environ, {"option.dtype": "auto"})
    assert found.spec.dtype == "auto"
    assert _setting(found.settings, "option.dtype").overridden == (
        Overridden("fp32", "serving.properties:3"),
        Overridden("fp16", "serving.properties:1"),
        Overridden("bf16", "OPTION_DTYPE"),
    )


def test_a_serving_variable_beats_the_servers_own_file(resolved: Resolved, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.properties").write_text(f"{REQUEST}=5\n{QUEUE}=6")
    home = {"MODEL_SERVER_HOME": str(tmp_path)}
    found = resolved("", home)
    assert found.spec.server.max_request_size == 5
    assert found.spec.job_queue_size == 6
    assert _setting(found.settings, REQUEST).origin == "config.properties:1"
    found = resolved("", {**home, "SERVING_MAX_REQUEST_SIZE": "7", "SERVING_JOB_QUEUE_SIZE": "8"})
    assert found.spec.server.max_request_size == 7
    assert found.spec.job_queue_size == 8


def test_the_servers_file_may_stand_without_its_folder(resolved: Resolved, tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text(f"{REQUEST}=5")
    assert resolved("", {"MODEL_SERVER_HOME": str(tmp_path)}).spec.server.max_request_size == 5


def test_a_serving_variable_is_only_a_default_for_a_key_of_the_model(resolved: Resolved) -> None:
    environ = {"SERVING_JOB_QUEUE_SIZE": "8", "SERVING_MAX_REQUEST_SIZE": "9"}
    found = resolved(f"{QUEUE}=6\n{REQUEST}=7", environ)
    assert found.spec.job_queue_size == 6
    assert found.spec.server.max_request_size == 9


def test_the_size_in_bytes_beats_the_size_in_mebibytes(resolved: Resolved) -> None:
    environ = {"SAGEMAKER_MAX_PAYLOAD_IN_MB": "6", "SAGEMAKER_MAX_REQUEST_SIZE": "5"}
    assert resolved("", environ).spec.server.max_request_size == 5
    del environ["SAGEMAKER_MAX_REQUEST_SIZE"]
    assert resolved("", environ).spec.server.max_request_size == 6 * 1024 * 1024


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("HF_MODEL_ID", "org/model", "option.model_id", "org/model"),
        ("HF_REVISION", "abc", "option.revision", "abc"),
        ("HF_MODEL_REVISION", "abc", "option.revision", "abc"),
        ("HF_TASK", "text-generation", "option.task", "text-generation"),
        ("TENSOR_PARALLEL_DEGREE", "max", "option.tensor_parallel_degree", "max"),
        ("SM_NUM_GPUS", "4", "option.tensor_parallel_degree", 4),
        ("MAX_BATCH_SIZE", "9", "option.max_rolling_batch_size", 9),
        ("MAX_BATCH_PREFILL_TOKENS", "9", "option.max_rolling_batch_prefill_tokens", 9),
        ("MAX_CONCURRENT_REQUESTS", "9", "job_queue_size", 9),
        ("ENABLE_CUDA_GRAPHS", "true", "option.enforce_eager", False),
        ("ENABLE_CUDA_GRAPHS", "anything", "option.enforce_eager", True),
        ("CUDA_MEMORY_FRACTION", "0.5", "option.gpu_memory_utilization", 0.5),
        ("OPTION_ENTRYPOINT", "djl_python.huggingface", "option.entryPoint", None),
        ("OPTION_entryPoint", "djl_python.huggingface", "option.entryPoint", None),
        ("OPTION_ENGINE", "Python", "engine", "Python"),
        ("OPTION_BATCH_SIZE", "4", "batch_size", 4),
        ("ARGS_BATCH_SIZE", "4", "batch_size", 4),
        ("SERVING_BATCH_SIZE", "4", "batch_size", 4),
        ("SERVING_MIN_WORKERS", "1", "minWorkers", 1),
        ("SAGEMAKER_NUM_MODEL_WORKERS", "1", "maxWorkers", 1),
    ],
)
def test_a_variable_means_its_option(
    resolved: Resolved, name: str, text: str, key: str, value: object
) -> None:
    setting = _setting(resolved("", {name: text}).settings, key)
    assert setting.value == (text if value is None else value)
    assert setting.origin == name


def test_an_empty_variable_is_unset(resolved: Resolved) -> None:
    assert resolved("", {"OPTION_DTYPE": "", "HF_MODEL_ID": ""}).spec.dtype == "auto"


def test_the_documented_spelling_beats_an_older_one(resolved: Resolved) -> None:
    found = resolved("option.max_rolling_batch_size=3\noption.max_num_seqs=4")
    assert found.spec.max_rolling_batch_size == 3
    assert resolved("option.max_num_seqs=4").spec.max_rolling_batch_size == 4


def test_a_key_without_its_prefix_is_read_with_a_warning(resolved: Resolved) -> None:
    found = resolved("dtype=fp16")
    assert found.spec.dtype == "fp16"
    (warning,) = found.warnings
    assert warning == "dtype (from serving.properties:1): read as option.dtype; write the prefix"
    assert resolved("option.dtype=bf16\ndtype=fp16").spec.dtype == "bf16"


def test_blanks_around_a_value_do_not_count(resolved: Resolved) -> None:
    assert resolved("option.dtype = fp16 \t").spec.dtype == "fp16"


def test_the_only_child_of_a_folder_is_the_models_folder(tmp_path: Path) -> None:
    inner = tmp_path / "outer" / "model-1"
    inner.mkdir(parents=True)
    (tmp_path / "outer" / ".hidden").touch()
    (inner / "serving.properties").write_text("option.model_id=org/model\noption.dtype=fp16")
    spec = resolve(tmp_path / "outer", {}, installed=HERE).spec
    assert spec.folder == inner
    assert spec.dtype == "fp16"
    assert spec.name == "model_1"


@pytest.mark.parametrize("other", ["a-folder", "z-folder", "file.txt"])
def test_a_folder_with_a_second_child_is_taken_as_it_is(tmp_path: Path, other: str) -> None:
    inner = tmp_path / "model-1"
    inner.mkdir()
    (inner / "serving.properties").write_text("option.dtype=no such type")
    second = tmp_path / other
    second.touch() if second.suffix else second.mkdir()
    spec = resolve(tmp_path, {"HF_MODEL_ID": "org/model"}, installed=HERE).spec
    assert spec.folder == tmp_path


def test_a_local_model_id_in_the_environment_is_the_folder(folder: Path) -> None:
    (folder / "serving.properties").write_text("option.dtype=fp16")
    spec = resolve(None, {"HF_MODEL_ID": str(folder)}, installed=HERE).spec
    assert spec.folder == folder
    assert spec.dtype == "fp16"
    assert spec.model_id is None
    assert spec.model == str(folder)


def test_the_environment_alone_makes_an_endpoint() -> None:
    environ = {"HF_MODEL_ID": "org/model-7b", "OPTION_MAX_MODEL_LEN": "auto"}
    spec = resolve(None, environ, installed=HERE).spec
    assert spec.model == "org/model-7b"
    assert spec.name == "org_model_7b"
    assert spec.folder is None
    assert spec.max_model_len is None


def test_an_address_is_taken_apart(resolved: Resolved) -> None:
    for text, host, port in (
        ("http://0.0.0.0:9000", "0.0.0.0", 9000),
        ("http://localhost", "localhost", 8080),
        ("http://[::1]:80/", "::1", 80),
        ("0.0.0.0:0", "0.0.0.0", 0),
    ):
        server = resolved("", {"SERVING_INFERENCE_ADDRESS": text}).spec.server
        assert (server.host, server.port) == (host, port)


def test_a_prefill_budget_of_minus_one_is_the_engines_choice(resolved: Resolved) -> None:
    spec = resolved("option.max_rolling_batch_prefill_tokens=-1").spec
    assert spec.max_rolling_batch_prefill_tokens is None
