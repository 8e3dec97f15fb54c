"""No setting is ever ignored: it is used, reported, the user's own, or an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmi.config import ConfigErrors, resolve
from lmi.config.resolution import Fate
from lmi.core import ConfigError
from tests.golden.config.collection import environments
from tests.unit.config.harness import ALL, HERE, Problems, Resolved

HANDLER = "def handle(inputs):\n    return None\n"


def test_an_unknown_option_names_its_line_and_the_nearest_option(problems: Problems) -> None:
    assert problems("# a comment\noption.dtpye=fp16") == [
        "option.dtpye='fp16' (from serving.properties:2): unknown option; "
        "did you mean option.dtype?"
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("options.dtype", "option.dtype"),
        ("opton.dtype", "option.dtype"),
        ("Option.dtype", "option.dtype"),
        ("dtpye", "option.dtype"),
        ("option.engine", "engine"),
        ("option.minWorkers", "minWorkers"),
        ("option.entrypoint", "option.entryPoint"),
        ("option.enable_prefix_cachin", "option.enable_prefix_caching"),
        ("option.num_scheduler_step", "option.num_scheduler_steps"),
        ("job_queue_sise", "job_queue_size"),
        ("Engine", "engine"),
    ],
)
def test_the_nearest_name_is_what_a_person_meant(
    problems: Problems, written: str, meant: str
) -> None:
    (line,) = problems(f"{written}=1")
    assert line.endswith(f"unknown option; did you mean {meant}?")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OPTION_DTPYE", "OPTION_DTYPE"),
        ("OPTIONS_DTYPE", "OPTION_DTYPE"),
        ("option_dtype", "OPTION_DTYPE"),
        ("TENSOR_PARALEL_DEGREE", "TENSOR_PARALLEL_DEGREE"),
        ("HF_MODELID", "HF_MODEL_ID"),
        ("hf_model_id", "HF_MODEL_ID"),
        ("SERVING_FEATURE", "SERVING_FEATURES"),
        ("SERVING_JOB_QUEUE_SIZ", "SERVING_JOB_QUEUE_SIZE"),
        ("SAGEMAKER_STARTUP_TIMEOT", "SAGEMAKER_STARTUP_TIMEOUT"),
        ("ARGS_MINWORKER", "ARGS_MINWORKERS"),
    ],
)
def test_a_misspelt_variable_names_the_nearest(problems: Problems, name: str, meant: str) -> None:
    assert problems("", {name: "1"}) == [
        f"{name}='1' (from {name}): unknown variable; did you mean {meant}?"
    ]


def test_every_problem_is_told_at_once_in_the_order_of_the_file(problems: Problems) -> None:
    lines = problems(
        "option.dtype=fp17\noption.nonsense_of_mine=1\noption.quantize=awq",
        {"OPTION_TASKS": "x", "TENSOR_PARALLEL_DEGREE": "two"},
    )
    assert [line.partition("=")[0] for line in lines] == [
        "OPTION_TASKS",
        "TENSOR_PARALLEL_DEGREE",
        "option.dtype",
        "option.nonsense_of_mine",
        "option.quantize",
    ]
    assert "expected a whole number from 1, or max" in lines[1]
    assert "expected one of auto, fp32, fp16, bf16" in lines[2]


@pytest.mark.parametrize("name", ["OPTION_TASK", "HF_TASK", "OPTION_ENGINE"])
def test_no_engine_is_blamed_while_what_it_is_chosen_from_is_wrong(
    problems: Problems, name: str
) -> None:
    (line,) = problems("", {name: "nonsense"}, installed={"echo"})
    assert line.startswith(f"{name}='nonsense' (from {name}): expected one of ")


def test_all_problems_are_one_config_error() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(None, {"OPTION_DTPYE": "x"}, installed=HERE)
    assert isinstance(caught.value, ConfigErrors)
    assert caught.value.problems[0].source == "OPTION_DTPYE"


def test_no_model_anywhere_says_the_three_ways_to_give_one() -> None:
    with pytest.raises(ConfigErrors, match="no model") as caught:
        resolve(None, {}, installed=HERE)
    text = str(caught.value)
    assert "folder" in text
    assert "option.model_id" in text
    assert "HF_MODEL_ID" in text


@pytest.mark.parametrize(
    "line",
    [
        "option.quantize=squeezellm",
        "option.enable_lora=true",
        "option.speculative_draft_model=org/draft",
        "option.task=text-embedding",
        "option.pipeline_parallel_degree=2",
        "option.paged_attention=false",
        "option.dtype=fp8",
        "option.load_format=pt",
        "option.kv_cache_dtype=fp8_e5m2",
        "option.tokenizer_mode=mistral",
        "option.num_scheduler_steps=8",
        "option.output_formatter=mine",
        "keystore=/a/file",
        "inference_address=https://0.0.0.0:8443",
    ],
)
def test_what_lmi_dist_cannot_honour_stops_it(problems: Problems, line: str) -> None:
    (problem,) = problems(f"option.rolling_batch=lmi-dist\n{line}")
    key, _, value = line.partition("=")
    assert problem.startswith(f"{key}={value!r} (from serving.properties:2): ")


@pytest.mark.parametrize(
    "line",
    [
        "option.enable_lora=false",
        "option.pipeline_parallel_degree=1",
        "option.enable_auto_tool_choice=False",
    ],
)
def test_switching_off_what_the_engine_lacks_is_no_problem(resolved: Resolved, line: str) -> None:
    found = resolved(f"option.rolling_batch=lmi-dist\n{line}")
    (setting,) = (each for each in found.settings if line.startswith(each.key))
    assert setting.fate is Fate.ADVISORY
    assert setting.note == "asks for nothing that lmi-dist lacks"


@pytest.mark.parametrize(
    "line",
    [
        "option.paged_attention=true",
        "option.parallel_loading=true",
        "option.load_format=safetensors",
        "option.swap_space=4",
        "minWorkers=1",
        "batch_size=4",
        "wait_model_loading=true",
    ],
)
def test_what_is_not_needed_is_reported_with_a_reason(resolved: Resolved, line: str) -> None:
    found = resolved(f"option.rolling_batch=lmi-dist\n{line}")
    (setting,) = (each for each in found.settings if line.startswith(each.key))
    assert setting.fate is Fate.ADVISORY
    assert setting.note
    assert setting.key.removeprefix("option.") not in found.spec.options


def test_arguments_of_vllm_are_known_when_vllm_runs(resolved: Resolved, problems: Problems) -> None:
    text = "option.rolling_batch=vllm\noption.num_scheduler_steps=8"
    assert resolved(text, installed=ALL).spec.options["num_scheduler_steps"] == 8
    (line,) = problems("option.rolling_batch=vllm\noption.num_scheduler_steps=x", installed=ALL)
    assert line.endswith("expected a whole number")


def test_warn_lets_unknown_options_pass_with_a_warning(resolved: Resolved) -> None:
    found = resolved("option.unknown_options=warn\noption.dtpye=fp16")
    assert found.warnings == (
        "option.dtpye (from serving.properties:2): unknown option; did you mean option.dtype?; "
        "ignored",
    )
    assert [s.key for s in found.settings if s.fate is Fate.UNKNOWN] == ["option.dtpye"]


def test_warn_may_come_from_the_environment(resolved: Resolved) -> None:
    assert resolved("option.dtpye=fp16", {"OPTION_UNKNOWN_OPTIONS": "warn"}).warnings


def test_warn_covers_misspelt_variables_too(resolved: Resolved) -> None:
    found = resolved("option.unknown_options=warn", {"HF_MODELID": "a/b"})
    assert found.warnings == (
        "HF_MODELID='a/b' (from HF_MODELID): unknown variable; did you mean HF_MODEL_ID?; ignored",
    )


def test_warn_does_not_excuse_an_option_that_the_engine_lacks(problems: Problems) -> None:
    assert problems("option.unknown_options=warn\noption.enable_lora=true")


def test_unknown_options_belong_to_the_users_handler(resolved: Resolved) -> None:
    text = "option.my_own_thing=7\nmy_argument=8\noption.dtype=whatever"
    found = resolved(text, {"OPTION_ANOTHER": "9"}, installed=ALL, model_py=HANDLER)
    assert found.spec.engine == "python"
    assert found.spec.has_custom_handler
    assert found.spec.user_options == {
        "my_own_thing": "7",
        "my_argument": "8",
        "dtype": "whatever",
        "another": "9",
    }


def test_one_edit_away_from_a_known_option_stops_the_users_handler_too(problems: Problems) -> None:
    (line,) = problems("option.predict_timeot=7", installed=ALL, model_py=HANDLER)
    assert line.endswith("unknown option; did you mean option.predict_timeout?")


def test_the_servers_options_are_checked_beside_the_users_handler(problems: Problems) -> None:
    (line,) = problems("option.predict_timeout=soon", installed=ALL, model_py=HANDLER)
    assert line.endswith("expected a whole number from 1")


def test_a_formatter_of_the_models_own_needs_a_model_py(
    problems: Problems, resolved: Resolved
) -> None:
    text = "option.rolling_batch=lmi-dist\noption.output_formatter=mine"
    (line,) = problems(text)
    assert line.startswith("option.output_formatter='mine' (from serving.properties:2): expected")
    spec = resolved(text, model_py="def mine(): ...\n").spec
    assert spec.output_formatter == "mine"
    assert spec.hooks


@pytest.mark.parametrize("environment", environments(), ids=lambda each: each.name)
@pytest.mark.parametrize("ours", [{}, {"OPTION_DTYPE": "fp16"}], ids=["bare", "with ours"])
def test_a_platforms_variables_never_trip_it(
    folder: Path, environment: object, ours: dict[str, str]
) -> None:
    variables = {**environment.variables, **ours}  # type: ignore[attr-defined]
    assert resolve(folder, variables, installed=HERE).warnings == ()


@pytest.mark.parametrize("service", ["OPTION_X", "SERVING", "OPTION_DTYPE", "ARGS", "HF_TASK_S"])
def test_service_discovery_never_trips_it(resolved: Resolved, service: str) -> None:
    environ = {
        f"{service}_SERVICE_HOST": "10.0.0.7",
        f"{service}_SERVICE_PORT": "8080",
        f"{service}_SERVICE_PORT_HTTP_MAIN": "8080",
        f"{service}_PORT": "tcp://10.0.0.7:8080",
        f"{service}_PORT_8080_TCP": "tcp://10.0.0.7:8080",
        f"{service}_PORT_8080_TCP_PROTO": "tcp",
        f"{service}_PORT_8080_TCP_PORT": "8080",
        f"{service}_PORT_8080_TCP_ADDR": "fd00:10:96::7",
    }
    assert resolved("", environ).warnings == ()


def test_an_option_that_looks_like_a_service_is_still_checked(problems: Problems) -> None:
    assert problems("", {"OPTION_MY_PORT": "eighty"})


@pytest.mark.parametrize("name", ["HF_TOKN", "OPTION_HF_TOKEN", "OPTION_MY_API_KEY"])
def test_a_secret_is_not_repeated_in_an_error(problems: Problems, name: str) -> None:
    (line,) = problems("", {name: "hf_abc"})
    assert line.startswith(name)
    assert "hf_abc" not in line


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="expected a readable folder"):
        resolve(tmp_path / "missing", {}, installed=HERE)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigErrors, match="expected a folder"):
        resolve(tmp_path / "file", {}, installed=HERE)


def test_a_broken_config_json_is_named(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigErrors, match=r"config\.json .*expected JSON"):
        resolve(folder, {}, installed=HERE)


@pytest.mark.parametrize("text", ["x" * 5000, "a\0b", "/" * 300, "..", "\udc80"])
def test_a_strange_model_id_is_only_a_name(folder: Path, text: str) -> None:
    spec = resolve(folder, {"HF_MODEL_ID": text}, installed=HERE).spec
    assert spec.model in (text, str(folder))
    spec = resolve(None, {"HF_MODEL_ID": text, "OPTION_MODEL_ID": "a/b"}, installed=HERE).spec
    assert spec.model == "a/b"
