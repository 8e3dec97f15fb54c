"""What `lmi quantize` refuses before it looks at a model. No torch."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmi.cli import app
from lmi.core import ConfigError
from lmi.quantize.settings import ActOrder, Method, settings_for


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """A command sets up the log of its whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--method gptq --bits 5", "--bits='5' (from the command line): expected 3 or 4 or 8"),
        ("--method awq --bits 8", "--bits='8' (from the command line): expected 4"),
        ("--method gptq --group-size 48", "expected 32 or 64 or 128 or -1"),
        ("--method int8 --group-size 32", "expected -1 with --method int8"),
        ("--method awq --act-order group", "only --method gptq rounds columns in an order"),
        ("--method fp8 --asymmetric", "--method fp8 is symmetric"),
        ("--method gptq --samples 0", "--samples='0'"),
        ("--method gptq --length 1", "--length='1'"),
        ("--method gptq --alpha 0.5", "only --method smoothquant"),
        ("--method smoothquant --bits 4", "--bits='4'"),
        ("--method smoothquant --symmetric", "--symmetric='True'"),
    ],
)
def test_a_flag_that_a_method_does_not_know_is_named(
    flags: str, named: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app, ["quantize", str(tmp_path), "--output", str(out), *flags.split()]
    )
    assert result.exit_code == 2
    assert named in result.stderr
    assert not out.exists()


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app,
        ["quantize", "/no/such", "--method", "gptq", "--output", str(tmp_path / "o"), "--json"],
    )
    assert result.exit_code == 2
    assert "there is no such folder" in json.loads(result.stdout)["problems"][0]["want"]


def test_each_method_has_defaults_of_its_own() -> None:
    gptq, awq = settings_for(Method.GPTQ), settings_for(Method.AWQ)
    assert (gptq.bits, gptq.group_size, gptq.symmetric) == (4, 128, True)
    assert gptq.act_order is ActOrder.STATIC
    assert (awq.bits, awq.group_size, awq.symmetric) == (4, 128, False)
    assert settings_for(Method.INT8).group_size == -1


def test_the_key_differs_with_every_setting_and_content() -> None:
    one = settings_for(Method.GPTQ)
    keys = {
        one.key("a"),
        one.key("b"),
        settings_for(Method.GPTQ, bits=3).key("a"),
        settings_for(Method.GPTQ, act_order=ActOrder.OFF).key("a"),
        settings_for(Method.GPTQ, samples=31).key("a"),
    }
    assert len(keys) == 5
    assert one.key("a") == settings_for(Method.GPTQ).key("a")


def test_a_group_size_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="--group-size='0'"):
        settings_for(Method.GPTQ, group_size=0)
