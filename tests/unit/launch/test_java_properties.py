"""What Java reads is explicit: no default of the model server's can change anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from lmi.config import ConfigErrors, Front, Resolution, resolve
from lmi.config.properties import parse
from lmi.core import ConfigError
from lmi.launch.djl.environment import environment
from lmi.launch.djl.installed import JavaServer
from lmi.launch.djl.properties import (
    MOST_IN_A_STEP,
    SECURE,
    Mode,
    mode,
    model_properties,
    server_properties,
)
from lmi.launch.djl.staged import Staged
from lmi.launch.djl.start import stage
from lmi.launch.runnable import runnable

HANDLER = "def handle(inputs): ...\n"
ADDRESS = "http://127.0.0.1:8080"

# Every key for which the model server has a default of its own; those of the server first.
SERVER_DEFAULTS = {
    *("inference_address", "management_address", "cluster_address", "load_models"),
    *("wait_model_loading", "allow_multi_status", "job_queue_size", "batch_size"),
    *("max_batch_delay", "max_idle_time", "reserved_memory_mb", "load_on_devices"),
    *("max_request_size", "number_of_netty_threads", "chunked_read_timeout"),
    *("bad_request_http_code", "wlm_error_http_code", "throttle_error_http_code"),
    *("server_error_http_code", "timeout_http_code", "request_id_header_key", "plugin_folder"),
    *("use_native_io", "io_ratio", "model_store"),
}
MODEL_DEFAULTS = {
    *("engine", "job_queue_size", "batch_size", "max_batch_delay", "max_idle_time"),
    *("load_on_devices", "minWorkers", "maxWorkers", "gpu.minWorkers", "gpu.maxWorkers"),
    *("cpu.minWorkers", "cpu.maxWorkers", "retry_threshold", "required_memory_mb"),
    *("reserved_memory_mb", "gpu.required_memory_mb", "gpu.reserved_memory_mb"),
    *("log_request_metric", "metrics_aggregation"),
    *("option.entryPoint", "option.pythonExecutable", "option.handler"),
    *("option.predict_timeout", "option.model_loading_timeout", "option.parallel_loading"),
    *("option.enable_venv", "option.mpi_mode", "option.async_mode", "option.rolling_batch"),
    *("option.max_rolling_batch_size", "option.use_passive_workers", "option.enable_lora"),
    *("option.enable_stateful_sessions", "option.lmcache_auto_config"),
}
# Their absence means nothing, where Java finds no model of its own to configure: there is no
# config.json in the staging folder and no option.model_id.
UNSET = {
    *("model_url_pattern", "error_rate_any", "error_rate_model", "error_rate_server"),
    *("error_rate_wlm", "keystore", "keystore_pass", "keystore_type", "private_key_file"),
    *("certificate_file", "cors_allowed_origin", "cors_allowed_methods", "cors_allowed_headers"),
    *("translator", "translatorFactory", "application"),
    *("option.env", "option.model_id", "option.speculative_draft_model", "option.modelName"),
    *("option.tensor_parallel_degree", "option.pipeline_parallel_degree"),
    *("option.optimization", "option.backend", "option.metric_dimension"),
    "option.trust_remote_code",
}


def _resolution(
    folder: Path, text: str = "engine=echo", environ: Mapping[str, str] | None = None
) -> Resolution:
    folder.mkdir(exist_ok=True)
    (folder / "serving.properties").write_text(text)
    return resolve(folder, environ or {}, installed=runnable(), front=Front.DJL)


@pytest.mark.parametrize("has_async_mode", [True, False])
@pytest.mark.parametrize("own_code", [True, False])
def test_every_default_of_the_model_server_is_written_out(
    tmp_path: Path, has_async_mode: bool, own_code: bool
) -> None:
    if own_code:
        (tmp_path / "model.py").write_text(HANDLER)
    found = _resolution(tmp_path, "" if own_code else "engine=echo")
    chosen = mode(found.spec, has_async_mode=has_async_mode, secure=False)
    model = model_properties(found.spec, chosen, secure=False)
    assert model.keys() == MODEL_DEFAULTS
    server = server_properties(found.spec, found.settings, ADDRESS, tmp_path)
    assert server.keys() == SERVER_DEFAULTS
    assert not (model.keys() | server.keys()) & UNSET


def test_java_starts_one_worker_of_an_engine_and_hands_on_each_request(tmp_path: Path) -> None:
    spec = _resolution(tmp_path, "engine=echo\nminWorkers=3\nbatch_size=8").spec
    chosen = mode(spec, has_async_mode=True, secure=False)
    found = model_properties(spec, chosen, secure=False)
    assert chosen == Mode(asynchronous=True)
    assert (found["minWorkers"], found["maxWorkers"], found["batch_size"]) == ("1", "1", "1")
    assert found["load_on_devices"] == "-1"
    assert (found["option.async_mode"], found["option.rolling_batch"]) == ("true", "disable")


def test_a_server_without_the_asynchronous_mode_sends_a_rolling_batch(tmp_path: Path) -> None:
    spec = _resolution(tmp_path).spec
    chosen = mode(spec, has_async_mode=False, secure=False)
    found = model_properties(spec, chosen, secure=False)
    assert found["option.async_mode"] == "false"
    assert found["option.rolling_batch"] not in ("disable", "auto", "lmi-dist")
    assert int(found["option.max_rolling_batch_size"]) == MOST_IN_A_STEP


def test_a_handlers_workers_are_java_s_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(HANDLER)
    text = "minWorkers=2\nmaxWorkers=4\nbatch_size=8\nmax_batch_delay=20\noption.handler=handle"
    spec = _resolution(tmp_path, text).spec
    found = model_properties(spec, mode(spec, has_async_mode=True, secure=False), secure=False)
    assert (found["minWorkers"], found["maxWorkers"]) == ("4", "4")
    assert (found["batch_size"], found["max_batch_delay"]) == ("8", "20")
    assert (found["option.async_mode"], found["option.rolling_batch"]) == ("false", "disable")
    assert found["load_on_devices"] == "*"


def test_java_waits_longer_than_we_do_and_does_not_restart_what_we_have_restarted(
    tmp_path: Path,
) -> None:
    text = "engine=echo\noption.predict_timeout=7\noption.model_loading_timeout=9\n"
    spec = _resolution(tmp_path, text + "retry_threshold=5").spec
    found = model_properties(spec, Mode(), secure=False)
    assert int(found["option.predict_timeout"]) > 7
    assert int(found["option.model_loading_timeout"]) > 9
    assert found["retry_threshold"] == "0"


def test_secure_mode_gets_only_keys_that_it_allows(tmp_path: Path) -> None:
    spec = _resolution(tmp_path).spec
    chosen = mode(spec, has_async_mode=True, secure=True)
    found = model_properties(spec, chosen, secure=True)
    assert found.keys() <= SECURE
    assert chosen == Mode(rolling_batch=True)
    assert found["option.entryPoint"].startswith("djl_python.")


def test_keys_of_the_server_reach_java_and_are_no_errors_there(tmp_path: Path) -> None:
    text = "engine=echo\ncors_allowed_origin=*\nkeystore_type=JKS\nerror_rate_any=5"
    environ = {"SERVING_NUMBER_OF_NETTY_THREADS": "3", "SERVING_FAIL_FAST": "true"}
    found = _resolution(tmp_path, text, environ)
    server = server_properties(found.spec, found.settings, ADDRESS, tmp_path)
    assert server["cors_allowed_origin"] == "*"
    assert server["keystore_type"] == "JKS"
    assert server["error_rate_any"] == "5"
    assert server["number_of_netty_threads"] == "3"
    assert "fail_fast" not in server
    assert _environment(found, environ)["SERVING_FAIL_FAST"] == "true"


def _environment(found: Resolution, environ: Mapping[str, str]) -> dict[str, str]:
    folder = Path("/t")
    return environment(
        environ,
        found.spec,
        found.settings,
        cache=folder,
        home=folder,
        temporary=folder,
        log_level="info",
    )


def test_no_variable_that_sets_an_option_is_read_twice(tmp_path: Path) -> None:
    environ = {
        "OPTION_DTYPE": "fp16",
        "ARGS_JOB_QUEUE_SIZE": "3",
        "SERVING_BATCH_SIZE": "9",
        "SERVING_FEATURES": "vllm",
        "HF_MODEL_ID": "a/b",
        "TENSOR_PARALLEL_DEGREE": "1",
        "SAGEMAKER_NUM_MODEL_WORKERS": "4",
        "DJL_ENTRY_POINT": "djl_python.huggingface",
        "HF_TOKEN": "secret",
        "PATH": "/bin",
        "SERVING_OPTS": "-Da=b",
    }
    found = _environment(_resolution(tmp_path, "engine=echo", environ), environ)
    kept = {name for name in environ if name in found}
    assert kept == {"HF_TOKEN", "PATH", "SERVING_OPTS"}
    assert found["SERVING_RETRY_THRESHOLD"] == "0"


def test_the_machine_gets_threads_for_every_answer_and_a_folder_of_its_own(tmp_path: Path) -> None:
    found = _resolution(tmp_path, "engine=echo\njob_queue_size=500")
    options = _environment(found, {"JAVA_OPTS": "-Xmx4g -Djava.io.tmpdir=/x"})["JAVA_OPTS"].split()
    name = "-Djava.util.concurrent.ForkJoinPool.common.parallelism="
    (threads,) = (int(each.removeprefix(name)) for each in options if each.startswith(name))
    assert threads > 500 + found.spec.max_rolling_batch_size
    assert options.index("-Xmx4g") > options.index("-Xmx1g")  # the last one counts
    assert options[-1] == "-Djava.io.tmpdir=/t"


def test_the_launcher_leaves_the_model_its_threads(tmp_path: Path) -> None:
    found = _resolution(tmp_path)
    assert _environment(found, {})["NO_OMP_NUM_THREADS"]
    assert "NO_OMP_NUM_THREADS" not in _environment(found, {"OMP_NUM_THREADS": "2"})


def test_a_staging_folder_is_whole(tmp_path: Path) -> None:
    found = _resolution(tmp_path / "model", "engine=echo\noption.dtype=fp16", {"HF_TOKEN": "hf_x"})
    run = tmp_path / "run"
    staged = Staged(found.properties(), found.spec.folder, tmp_path / "files")
    config = stage(run, found, staged, Mode(asynchronous=True), ADDRESS, secure=False)
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    folder = run / "models" / "model"
    assert files == {
        "config.properties",
        "models/model/lmi.json",
        "models/model/serving.properties",
    }
    assert Staged.read(folder) == staged
    text = (folder / "serving.properties").read_text()
    assert {entry.key for entry in parse(text)} == MODEL_DEFAULTS
    assert "#   option.dtype=fp16  (serving.properties:2)" in text
    assert f"model_store={run}/models" in config.read_text()
    told = json.loads((folder / "lmi.json").read_text())
    assert told["settings"] == {"engine": "echo", "option.dtype": "fp16"}


@pytest.mark.parametrize(
    ("version", "has"), [("0.36.0", True), ("0.33.0", True), ("0.32.1", False), ("0.25.0", False)]
)
def test_the_asynchronous_mode_came_with_a_release(version: str, has: bool) -> None:
    assert JavaServer(Path("x"), version).has_async_mode is has


def test_a_staging_folder_does_not_get_round_secure_mode(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(HANDLER)
    found = _resolution(tmp_path, "")
    staged = Staged(found.properties(), found.spec.folder)
    assert staged.resolve({}, runnable()).spec == found.spec
    environ = {
        "SAGEMAKER_SECURE_MODE": "true",
        "SAGEMAKER_SECURITY_CONTROLS": "DISALLOW_CUSTOM_INFERENCE_SCRIPTS",
    }
    with pytest.raises(ConfigErrors, match="secure mode forbids it"):
        staged.resolve(environ, runnable())


def test_a_staging_file_of_another_form_is_an_error_with_its_name(tmp_path: Path) -> None:
    assert Staged.read(tmp_path) is None
    (tmp_path / "lmi.json").write_text('{"settings": 1}')
    with pytest.raises(ConfigError, match=r"lmi\.json .*expected what `lmi serve` writes"):
        Staged.read(tmp_path)
