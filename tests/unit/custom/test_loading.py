"""A user's file is executed once, found only where it may be, and checked when it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmi.core import ConfigError, ModelError
from lmi.custom.handlers import find, load_handler
from lmi.custom.loading import load_module
from lmi.custom.marks import for_stock, marked
from lmi.custom.signatures import is_asynchronous
from tests.support.functions import write_model

COUNTED = """
    from pathlib import Path
    log = Path(__file__).with_name("runs")
    log.write_text((log.read_text() if log.exists() else "") + "x")
    def handle(inputs): pass
"""


def test_a_file_is_executed_once_however_it_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path, COUNTED)
    first = load_module(folder, "model.py")
    assert load_module(folder, str(folder / "model.py")) is first
    assert load_module(folder / ".." / folder.name, "./model.py") is first
    assert (folder / "runs").read_text() == "x"


def test_a_namespace_keeps_files_of_one_place_apart(tmp_path: Path) -> None:
    folder = write_model(tmp_path, COUNTED)
    assert load_module(folder, "model.py", "a-b.c") is not load_module(folder, "model.py")
    assert load_module(folder, "model.py", "a-b.c") is load_module(folder, "model.py", "a-b.c")


def test_a_file_that_failed_is_tried_again(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "raise RuntimeError('first')")
    with pytest.raises(ModelError, match=r"model\.py:1: RuntimeError: first"):
        load_module(folder, "model.py")
    write_model(tmp_path, "value = 1234")
    assert load_module(folder, "model.py").value == 1234


def test_classes_of_a_file_know_their_module(tmp_path: Path) -> None:
    text = """
        from __future__ import annotations
        from dataclasses import dataclass
        @dataclass
        class Pair:
            a: int
    """
    module = load_module(write_model(tmp_path, text), "model.py")
    assert module.Pair(1).a == 1


@pytest.mark.parametrize(
    ("entry_point", "said"),
    [
        ("https://example.com/model.py", "not fetched from the network"),
        ("s3://bucket/model.py", "not fetched from the network"),
        ("../model.py", "inside the model's folder"),
        ("absent.py", "there is no file"),
        ("/absent/model.py", "there is no file"),
        ("no_such_module_here", "there is no such module"),
        ("no_such_module_here.part", "there is no such module"),
    ],
)
def test_an_entry_point_that_cannot_be_meant_is_refused(
    tmp_path: Path, entry_point: str, said: str
) -> None:
    write_model(tmp_path, "")
    folder = tmp_path / "inner"
    folder.mkdir()
    with pytest.raises(ConfigError, match=said) as caught:
        load_module(folder, entry_point)
    assert caught.value.option == "option.entryPoint"


def test_a_link_in_the_folder_is_followed(tmp_path: Path) -> None:
    write_model(tmp_path, "value = 7")
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "model.py").symlink_to(tmp_path / "model.py")
    assert load_module(folder, "model.py").value == 7
    assert load_module(folder, "model.py") is load_module(tmp_path, "model.py")


def test_without_a_handler_the_fallback_answers(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "def format(x): pass")
    write_model(tmp_path, "def handle(inputs): return 1", "stock.py")
    assert load_handler(folder, None, "stock.py", "handle").main(None) == 1
    with pytest.raises(ConfigError, match="there is no such function"):
        load_handler(folder, None, None, "handle")
    (folder / "model.py").unlink()
    assert load_handler(folder, None, "stock.py", "handle").main(None) == 1
    with pytest.raises(ConfigError, match=r"there is no model\.py"):
        load_handler(folder, None, None, "handle")


@pytest.mark.parametrize(
    ("text", "asynchronous"),
    [
        ("def handle(inputs): pass", False),
        ("async def handle(inputs): pass", True),
        ("async def handle(inputs): yield 1", True),
        ("class H:\n    async def __call__(self, inputs): pass\nhandle = H()", True),
        ("def handle(inputs, more=None, *rest, **named): pass", False),
        ("handle = len", False),
    ],
)
def test_any_callable_of_one_argument_is_a_handler(
    tmp_path: Path, text: str, asynchronous: bool
) -> None:
    (tmp_path / "model.py").write_text(text)
    handler = find(load_module(tmp_path, "model.py"), "handle")
    assert handler is not None
    assert handler.asynchronous is asynchronous
    assert is_asynchronous(handler.main) is asynchronous


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("def handle(): pass", "expected handle(inputs: Input) -> Output, def or async def"),
        ("def handle(a, b): pass", "expected handle(inputs: Input) -> Output, def or async def"),
        ("def model_fn(folder): pass", "expected model_fn(model_dir)"),
        ("def predict_fn(input_data, model): pass", "expected model_fn(model_dir) beside it"),
        (
            "def model_fn(model_dir): pass\ndef input_fn(body, content_type): pass",
            "expected input_fn(request_body, content_type)",
        ),
    ],
)
def test_a_wrong_signature_is_named_with_the_right_one(
    tmp_path: Path, text: str, want: str
) -> None:
    (tmp_path / "model.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        find(load_module(tmp_path, "model.py"), "handle")
    assert caught.value.want == want
    assert "model.py:" in str(caught.value)


def test_marked_functions_are_found_and_of_two_the_first_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = """
        from djl_python.input_parser import input_formatter
        from djl_python.output_formatter import output_formatter
        @output_formatter
        def b(x): pass
        @output_formatter
        def a(x): pass
        @input_formatter
        def read(x): pass
    """
    module = load_module(write_model(tmp_path, text), "model.py")
    found = marked(module)
    assert found == {"output_formatter": module.a, "input_formatter": module.read}
    assert "@output_formatter marks a and b: only the first is used" in caplog.text
    assert for_stock(tmp_path, module) == {}
    assert for_stock(tmp_path, write_other(tmp_path)) == found


def write_other(folder: Path) -> object:
    return load_module(write_model(folder, "", "stock.py"), "stock.py")
