"""SageMaker's secure mode forbids what it says, and nothing where it is off."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.harness import ALL, Problems, Resolved


def _mode(controls: str, channel: Path | None = None) -> dict[str, str]:
    environ = {"SAGEMAKER_SECURE_MODE": "true", "SAGEMAKER_SECURITY_CONTROLS": controls}
    if channel is not None:
        environ["SAGEMAKER_UNTRUSTED_CHANNELS"] = str(channel)
    return environ


ALL_CONTROLS = (
    "DISALLOW_TRUST_REMOTE_CODE,DISALLOW_CUSTOM_INFERENCE_SCRIPTS, DISALLOW_REQUIREMENTS_TXT,"
    "DISALLOW_PICKLE_FILES,DISALLOW_CHAT_TEMPLATE"
)


def test_a_harmless_folder_passes_every_control(resolved: Resolved, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert resolved("option.dtype=fp16", _mode(ALL_CONTROLS, tmp_path)).spec.dtype == "fp16"


@pytest.mark.parametrize(
    ("line", "control"),
    [
        ("option.trust_remote_code=true", "DISALLOW_TRUST_REMOTE_CODE"),
        ("option.entryPoint=mine.py", "DISALLOW_CUSTOM_INFERENCE_SCRIPTS"),
    ],
)
def test_a_forbidden_option_is_named(problems: Problems, line: str, control: str) -> None:
    (problem,) = problems(line, _mode(control), installed=ALL)
    assert problem.endswith(f"(from serving.properties:1): secure mode forbids it: {control}")
    assert problems(line, _mode("DISALLOW_PICKLE_FILES"), installed=ALL) == []


def test_a_models_own_code_is_forbidden(problems: Problems) -> None:
    environ = _mode("DISALLOW_CUSTOM_INFERENCE_SCRIPTS")
    (problem,) = problems("", environ, model_py="def handle(i): ...\n", installed=ALL)
    assert problem.startswith("model.py (from ")


def test_requirements_are_forbidden(problems: Problems, folder: Path) -> None:
    (folder / "requirements.txt").touch()
    (problem,) = problems("", _mode("DISALLOW_REQUIREMENTS_TXT"))
    assert problem.startswith("requirements.txt (from ")


@pytest.mark.parametrize("name", ["a.bin", "deep/b.PT", "c.pth", "d.ckpt", "e.pkl"])
def test_pickles_in_a_channel_are_forbidden(problems: Problems, tmp_path: Path, name: str) -> None:
    (tmp_path / "channel" / name).parent.mkdir(parents=True)
    (tmp_path / "channel" / name).touch()
    environ = _mode("DISALLOW_PICKLE_FILES", tmp_path / "channel")
    (problem,) = problems("", environ)
    assert problem.endswith("secure mode forbids it: DISALLOW_PICKLE_FILES")


@pytest.mark.parametrize("text", ['{"chat_template": "x"}', "{"])
def test_a_chat_template_in_a_channel_is_forbidden(
    problems: Problems, tmp_path: Path, text: str
) -> None:
    (tmp_path / "channel").mkdir()
    (tmp_path / "channel" / "tokenizer_config.json").write_text(text)
    (problem,) = problems("", _mode("DISALLOW_CHAT_TEMPLATE", tmp_path / "channel"))
    assert problem.startswith("tokenizer_config.json (from ")


@pytest.mark.parametrize("controls", ["", "DISALLOW_PICKLES"])
def test_controls_that_nobody_knows_do_not_pass(problems: Problems, controls: str) -> None:
    (problem,) = problems("", _mode(controls))
    assert problem.startswith("SAGEMAKER_SECURITY_CONTROLS")


def test_nothing_is_forbidden_where_the_mode_is_off(resolved: Resolved) -> None:
    environ = _mode("DISALLOW_TRUST_REMOTE_CODE") | {"SAGEMAKER_SECURE_MODE": "false"}
    assert resolved("option.trust_remote_code=true", environ).spec.trust_remote_code


def test_another_interpreter_and_other_variables_are_forbidden(problems: Problems) -> None:
    text = "option.pythonExecutable=/tmp/python\noption.env=A=b\noption.rolling_batch=disable"
    found = problems(text, _mode("DISALLOW_PICKLE_FILES"), installed=ALL)
    assert [line.partition("=")[0] for line in found] == [
        "option.pythonExecutable",
        "option.env",
    ]
