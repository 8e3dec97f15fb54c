"""What a model requires is installed beside the installation, once, and only that model sees it."""

from __future__ import annotations

import logging
import sys
import zipfile
from pathlib import Path

import pytest

from lmi.custom.requirements import find_requirements, install
from lmi.custom.spec import Requirements, silent
from tests.support.functions import served

OFFLINE = {"DJL_OFFLINE": "true"}


def write_wheel(folder: Path, name: str, version: str) -> None:
    """A wheel with one module that says its version."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


def test_a_folder_without_the_file_requires_nothing(tmp_path: Path) -> None:
    assert find_requirements(tmp_path, {}) is None


@pytest.mark.parametrize(
    ("environ", "links", "index", "dependencies"),
    [
        ({}, False, True, True),
        ({}, True, True, True),
        (OFFLINE, False, True, False),
        (OFFLINE, True, False, True),
    ],
)
def test_offline_keeps_pip_off_the_index_as_the_reference_does(
    tmp_path: Path, environ: dict[str, str], links: bool, index: bool, dependencies: bool
) -> None:
    (tmp_path / "requirements.txt").write_text("x")
    if links:
        (tmp_path / "requirements").mkdir()
    assert find_requirements(tmp_path, environ) == Requirements(
        tmp_path / "requirements.txt",
        tmp_path / "requirements" if links else None,
        index,
        dependencies,
    )


@pytest.mark.slow
def test_a_workers_code_finds_what_its_model_requires(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write_wheel(folder / "requirements", "lmi_test_shapes", "1.5")
    # The second one is installed here already: it is found, and not installed again.
    (folder / "requirements.txt").write_text("lmi_test_shapes==1.5\nmsgspec\n")
    text = """
        import lmi_test_shapes, msgspec
        def handle(inputs):
            return None if inputs.is_empty() else [lmi_test_shapes.version, msgspec.__file__]
    """
    import msgspec

    for _ in range(2):
        with (
            caplog.at_level(logging.INFO, "lmi.custom"),
            served(
                folder,
                text,
                requirements=find_requirements(folder, OFFLINE),
                cache=tmp_path / "cache",
            ) as calls,
        ):
            assert calls.ask().body == f'["1.5","{msgspec.__file__}"]'.encode()
    assert caplog.text.count("installing") == 1
    assert "lmi_test_shapes" not in sys.modules


@pytest.mark.slow
def test_what_cannot_be_installed_is_a_warning_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements.txt").write_text("lmi_test_absent==1\n")
    found = find_requirements(tmp_path, OFFLINE)
    assert found is not None
    for _ in range(2):
        site = install(found, sys.executable, tmp_path / "cache", silent)
        assert not site.exists()
    assert caplog.text.count("No matching distribution found for lmi_test_absent==1") == 2


def test_other_requirements_are_another_environment(tmp_path: Path) -> None:
    places = set()
    for text, environ in (("a==1\n", {}), ("a==2\n", {}), ("a==2\n", OFFLINE)):
        (tmp_path / "requirements.txt").write_text(text)
        found = find_requirements(tmp_path, environ)
        assert found is not None
        places.add(install(found, "/no/such/python", tmp_path / "cache", silent).parent)
    assert len(places) == 3


def test_an_interpreter_without_pip_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "requirements.txt").write_text("x\n")
    found = find_requirements(tmp_path, {})
    assert found is not None
    install(found, "/no/such/python", tmp_path / "cache", silent)
    assert "/no/such/python: No such file" in caplog.text
