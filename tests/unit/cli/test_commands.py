"""What the commands print, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lmi.cli import app
from lmi.engines import installed
from tests.support.djl_serving import install

HEAVY = ("torch", "transformers", "vllm", "deepspeed", "boto3", "huggingface_hub")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for LMI-Dist with one option overridden, one not needed and one secret."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (made / "serving.properties").write_text(
        "option.rolling_batch=lmi-dist\noption.dtype=fp16\noption.swap_space=4\n"
    )
    return made


@pytest.fixture
def lmi(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The commands in this process, with none of this machine's variables that mean an option."""
    for name in os.environ:
        if name.startswith(("OPTION_", "SERVING_", "ARGS_", "HF_", "SAGEMAKER_")):
            monkeypatch.delenv(name)
    return CliRunner()


def _run(lmi: CliRunner, *words: object, **variables: str) -> Result:
    return lmi.invoke(app, [str(word) for word in words], env=variables)


def test_check_says_what_would_run_and_why(lmi: CliRunner, folder: Path) -> None:
    result = _run(lmi, "check", folder, "--set", "option.dtype=bf16")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "engine   lmi-dist: option.rolling_batch=lmi-dist names it"
    assert "model    model, in the folder itself" in lines
    assert "  option.dtype=bf16  (--set option.dtype) -> lmi-dist" in lines
    assert "    overrides fp16  (serving.properties:2)" in lines
    assert any(
        "option.swap_space=4" in line and "computes a preempted request again" in line
        for line in lines
    )


def test_check_as_json_has_the_same(lmi: CliRunner, folder: Path) -> None:
    result = _run(lmi, "check", folder, "--json", HF_MODEL_ID="org/model")
    told = json.loads(result.stdout)
    assert told["ok"] is True
    assert (told["engine"], told["model"]) == ("lmi-dist", "org/model")
    fates = {setting["option"]: setting["fate"] for setting in told["settings"]}
    assert fates["option.dtype"] == "used"
    assert fates["option.swap_space"] == "advisory"


def test_every_problem_is_a_line_on_stderr_and_the_exit_code_is_2(
    lmi: CliRunner, folder: Path
) -> None:
    for command in ("check", "explain", "serve"):
        result = _run(lmi, command, folder, "--set", "option.dtpye=x", OPTION_TASKS="y")
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.splitlines() == [
            "error: option.dtpye='x' (from --set option.dtpye): unknown option; "
            "did you mean option.dtype?",
            "error: OPTION_TASKS='y' (from OPTION_TASKS): unknown variable; "
            "did you mean OPTION_TASK?",
        ]


def test_problems_as_json_are_machine_readable(lmi: CliRunner, folder: Path) -> None:
    result = _run(lmi, "check", folder, "--json", "--set", "option.dtpye=x")
    assert result.exit_code == 2
    assert json.loads(result.stdout) == {
        "ok": False,
        "problems": [
            {
                "option": "option.dtpye",
                "value": "x",
                "source": "--set option.dtpye",
                "want": "unknown option; did you mean option.dtype?",
            }
        ],
    }


def test_a_set_without_a_value_is_told_so(lmi: CliRunner) -> None:
    result = _run(lmi, "check", "--set", "option.dtype")
    assert result.exit_code == 2
    assert (
        result.stderr == "error: --set='option.dtype' (from the command line): expected KEY=VALUE\n"
    )


def test_explain_shows_value_origin_and_reader(lmi: CliRunner, folder: Path) -> None:
    result = _run(lmi, "explain", folder, OPTION_DTYPE="bf16")
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "option.dtype fp16 serving.properties:2 lmi-dist" in rows
    assert "bf16 OPTION_DTYPE overridden by serving.properties:2" in rows
    assert any(row.startswith("option.swap_space 4 serving.properties:3 nobody:") for row in rows)
    assert not any("max_rolling_batch_size" in row for row in rows)


def test_explain_all_shows_defaults_too(lmi: CliRunner, folder: Path) -> None:
    told = json.loads(_run(lmi, "explain", folder, "--all", "--json").stdout)
    rows = {row["option"]: row for row in told["settings"]}
    assert rows["option.drain_seconds"]["value"] == "25"
    assert rows["option.drain_seconds"]["origin"] == "default"
    assert rows["option.drain_seconds"]["consumer"] == "server"


def test_explain_says_what_was_chosen_automatically(lmi: CliRunner, folder: Path) -> None:
    (folder / "serving.properties").write_text("")
    told = json.loads(_run(lmi, "explain", folder, "--json").stdout)
    (engine,) = (row for row in told["settings"] if row["option"] == "engine")
    assert engine["value"] in installed()
    assert engine["origin"].startswith("automatic: ")


@pytest.mark.parametrize("words", [("explain",), ("explain", "--json"), ("check",)])
def test_secrets_are_masked(lmi: CliRunner, folder: Path, words: tuple[str, ...]) -> None:
    secrets = {"HF_TOKEN": "hf_very_secret", "SERVING_KEYSTORE_PASS": "changeit"}
    result = _run(lmi, *words, folder, **secrets)
    assert result.exit_code == 0
    assert not any(secret in result.output for secret in secrets.values())


def test_a_secret_of_the_users_own_is_masked_by_its_name(lmi: CliRunner, folder: Path) -> None:
    with (folder / "serving.properties").open("a") as file:
        file.write("option.unknown_options=warn\noption.my_service_token=very-secret\n")
    for command in ("check", "explain"):
        result = _run(lmi, command, folder)
        assert result.exit_code == 0
        assert "my_service_token" in result.output
        assert "very-secret" not in result.output


def test_help_has_an_example_for_every_command(lmi: CliRunner) -> None:
    assert "lmi check" in _run(lmi, "--help").output
    for command in ("serve", "check", "explain"):
        assert f"lmi {command} examples/demo" in _run(lmi, command, "--help").output


def _modules_after(*words: str) -> set[str]:
    """The modules that a command leaves loaded, in a process of its own."""
    script = (
        "import sys\n"
        "from lmi.cli import main\n"
        f"sys.argv = ['lmi', *{words!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines())


@pytest.mark.slow
def test_check_and_explain_load_no_heavy_library(folder: Path) -> None:
    for command in ("check", "explain"):
        assert not _modules_after(command, str(folder)) & {*HEAVY}


@pytest.mark.slow
def test_help_loads_nothing_but_the_command_line() -> None:
    assert not _modules_after("--help") & {*HEAVY, "rich.console", "lmi.config", "pydantic"}


def _installed(tmp_path: Path, version: str = "0.36.0") -> str:
    return str(install(tmp_path / "djl", version))


def test_check_says_who_takes_the_requests(lmi: CliRunner, folder: Path, tmp_path: Path) -> None:
    own = _run(lmi, "check", folder).stdout
    assert "front    our own server" in own
    home = _installed(tmp_path)
    told = _run(lmi, "check", folder, DJL_SERVING_HOME=home).stdout
    assert f"front    the DJL model server 0.36.0 ({home}/bin/djl-serving)" in told
    assert "async_mode" in told
    assert "a client that leaves is not noticed there" in told
    kept = _run(lmi, "check", folder, "--front", "embedded", DJL_SERVING_HOME=home).stdout
    assert "front    our own server" in kept


def test_a_front_that_is_not_installed_is_refused(lmi: CliRunner, folder: Path) -> None:
    result = _run(lmi, "check", folder, "--front", "djl", PATH="/nowhere")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --front='djl' (from the command line): the DJL model")


def test_keys_of_the_java_server_are_read_there_and_refused_here(
    lmi: CliRunner, folder: Path, tmp_path: Path
) -> None:
    words = ("check", folder, "--set", "cors_allowed_origin=*")
    assert _run(lmi, *words).exit_code == 2
    told = _run(lmi, *words, DJL_SERVING_HOME=_installed(tmp_path))
    assert told.exit_code == 0
    assert (
        "cors_allowed_origin=*  (--set cors_allowed_origin) -> the DJL model server" in told.stdout
    )


def test_check_says_whose_code_takes_part(lmi: CliRunner, folder: Path) -> None:
    (folder / "model.py").write_text("def handle(inputs): ...\n")
    told = _run(lmi, "check", folder, "--set", "engine=lmi-dist").stdout
    assert "code     model.py beside the engine" in told
    (folder / "serving.properties").write_text("batch_size=8\nminWorkers=2")
    told = _run(lmi, "check", folder).stdout
    assert "code     model.py: its handle takes the requests, in processes of its own" in told
    assert "code     2 to 2 workers on each device" in told
    assert "code     batches of up to 8 requests, gathered for 100 ms" in told
    (folder / "model.py").unlink()
    told = _run(lmi, "check", folder, "--set", "option.task=fill-mask").stdout
    assert "code     djl_python.huggingface, a stock handler, takes the requests" in told
