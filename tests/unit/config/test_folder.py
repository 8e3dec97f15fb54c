"""What a folder tells without running anything in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmi.config.folder import look
from tests.unit.config.harness import ALL, Resolved


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def handle(i): ...", {"handle"}),
        ("async def handle(i): ...", {"handle"}),
        ("handle = other", {"handle"}),
        ("a, (b, c) = 1, (2, 3)", {"a", "b", "c"}),
        ("from x import handle", {"handle"}),
        ("from x import y as handle", {"handle"}),
        ("import a.b", {"a"}),
        ("class Model:\n    def handle(self): ...", {"Model"}),
        ("try:\n    import x\nexcept ImportError:\n    def handle(i): ...", {"x", "handle"}),
        ("if True:\n    def handle(i): ...", {"handle"}),
        ("def f():\n    handle = 1", {"f"}),
        ("# only a comment", set()),
        ("from x import *", None),
        ("this is no Python", None),
        ("x = '\0'", None),
    ],
)
def test_the_names_of_a_model_py_are_read(
    tmp_path: Path, source: str, names: set[str] | None
) -> None:
    (tmp_path / "model.py").write_text(source)
    assert look(tmp_path).names == names


def test_a_model_py_without_a_handler_is_no_handler(resolved: Resolved) -> None:
    found = resolved(model_py="def my_formatter(output): ...\n", installed=ALL)
    assert found.spec.engine == "vllm"
    assert found.spec.model_py
    assert not found.spec.has_custom_handler


def test_a_model_py_with_a_handler_takes_the_requests(resolved: Resolved) -> None:
    for name, options in (("handle", ""), ("answer", "option.handler=answer")):
        found = resolved(options, model_py=f"def {name}(i): ...\n", installed=ALL)
        assert found.spec.has_custom_handler


@pytest.mark.parametrize("name", ["model_fn", "predict_fn"])
def test_a_script_of_sagemaker_takes_the_requests(resolved: Resolved, name: str) -> None:
    found = resolved(model_py=f"def {name}(a): ...\n", installed=ALL)
    assert found.spec.has_custom_handler
    assert found.spec.engine == "python"


@pytest.mark.parametrize("engine", ["lmi-dist", "echo"])
def test_beside_an_engine_that_is_named_outright_a_handler_only_helps(
    resolved: Resolved, engine: str
) -> None:
    spec = resolved(f"engine={engine}", model_py="def handle(i): ...\n").spec
    assert spec.engine == engine
    assert spec.hooks
    assert spec.code is None


def test_a_stock_entry_point_beats_the_folders_model_py(resolved: Resolved) -> None:
    text = "option.entryPoint=djl_python.huggingface"
    found = resolved(text, model_py="def handle(i): ...\n", installed=ALL)
    assert not found.spec.has_custom_handler


def test_an_entry_point_of_the_users_takes_the_requests(resolved: Resolved) -> None:
    for entry_point in ("serve_it.py", "my.module", "https://host/model.py"):
        found = resolved(f"option.entryPoint={entry_point}", installed=ALL)
        assert found.spec.has_custom_handler
        assert found.spec.entry_point == entry_point


@pytest.mark.parametrize(
    ("file", "has_model", "classic"),
    [
        ("model.safetensors", True, None),
        ("config.json", True, None),
        ("params.json", True, None),
        ("model.skops", False, "sklearn"),
        ("model.bst", False, "xgboost"),
        ("notes.txt", False, None),
    ],
)
def test_a_models_files_are_recognised(
    tmp_path: Path, file: str, has_model: bool, classic: str | None
) -> None:
    (tmp_path / file).write_text("{}")
    found = look(tmp_path)
    assert (found.has_model, found.classic) == (has_model, classic)
