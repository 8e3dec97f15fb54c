"""The DJL model server is found where its package, or a variable, has put it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmi.core import ConfigError
from lmi.launch.djl.installed import find
from tests.support.djl_serving import install


def test_a_variable_names_its_folder(tmp_path: Path) -> None:
    home = install(tmp_path / "djl", "0.34.0")
    found = find({"DJL_SERVING_HOME": str(home)})
    assert found is not None
    assert (found.launcher, found.version) == (home / "bin" / "djl-serving", "0.34.0")


def test_a_variable_that_names_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"DJL_SERVING_HOME=.*expected the folder of the DJL"):
        find({"DJL_SERVING_HOME": str(tmp_path)})


def test_it_is_found_on_the_path_with_the_jar_of_its_package(tmp_path: Path) -> None:
    home = install(tmp_path / "djl-serving-0.36.0", "0.36.0")
    (tmp_path / "bin").mkdir()
    (home / "bin" / "djl-serving").rename(tmp_path / "bin" / "djl-serving")
    found = find({"PATH": str(tmp_path / "bin")}, packages=tmp_path)
    assert found is not None
    assert found.version == "0.36.0"


def test_where_it_is_not_installed_there_is_none(tmp_path: Path) -> None:
    assert find({"PATH": str(tmp_path)}, packages=tmp_path) is None


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_a_launcher_without_its_jar_is_an_error_and_no_guess(
    tmp_path: Path, content: bytes
) -> None:
    home = install(tmp_path / "djl", "0.36.0")
    (home / "lib" / "python-0.36.0.jar").write_bytes(content)
    with pytest.raises(ConfigError, match=r"python-\*\.jar"):
        find({"PATH": str(home / "bin")}, packages=tmp_path / "none")
