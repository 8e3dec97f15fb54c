"""The model server's engine folder holds our handlers, whatever stood there before."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmi.core import ConfigError
from lmi.launch.djl.engine_folder import cache_folder, fill

HANDLERS = Path(__file__).resolve().parents[3] / "handlers"
ENGINE = "djl_python_engine.py"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "python" / "0.36.0"


def _names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_it_is_filled_with_the_engine_and_the_package(target: Path) -> None:
    fill(target)
    assert (target / ENGINE).read_bytes() == (HANDLERS / ENGINE).read_bytes()
    assert (target / "djl_python" / "__init__.py").is_file()
    assert _names(target.parent) == [target.name]


def test_one_that_is_right_already_is_left_alone(target: Path) -> None:
    fill(target)
    (target / "__pycache__").mkdir()
    (target / "__pycache__" / "x.pyc").touch()
    before = target.stat().st_ino
    fill(target)
    assert target.stat().st_ino == before


def test_one_of_another_release_of_ours_is_replaced(target: Path) -> None:
    fill(target)
    (target / ENGINE).write_text("older")
    fill(target)
    assert (target / ENGINE).read_text() != "older"
    assert _names(target.parent) == [target.name]


def test_one_of_somebody_else_is_kept_under_another_name(target: Path) -> None:
    for content in ("stock", "stock again"):
        (target / ".lmi").unlink(missing_ok=True)
        target.mkdir(parents=True, exist_ok=True)
        (target / ENGINE).write_text(content)
        fill(target)
    assert _names(target.parent) == ["0.36.0", "0.36.0.replaced", "0.36.0.replaced-2"]
    assert (target.with_name("0.36.0.replaced") / ENGINE).read_text() == "stock"


def test_a_half_made_one_is_not_trusted(target: Path) -> None:
    target.mkdir(parents=True)
    fill(target)
    assert (target / ENGINE).is_file()


def test_a_place_that_cannot_be_written_is_an_error_with_its_name(target: Path) -> None:
    target.parent.parent.mkdir()
    target.parent.touch()
    with pytest.raises(ConfigError, match=r"ENGINE_CACHE_DIR=.*0\.36\.0"):
        fill(target)


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, "/home/me/.djl.ai"),
        ({"DJL_CACHE_DIR": "/a"}, "/a"),
        ({"DJL_CACHE_DIR": "/a", "ENGINE_CACHE_DIR": "/b"}, "/b"),
    ],
)
def test_the_cache_is_where_the_server_looks(environ: dict[str, str], found: str) -> None:
    assert cache_folder(environ, Path("/home/me")) == Path(found)
