"""A model folder made of text, resolved."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from lmi.config import ConfigErrors, Resolution, resolve
from tests.unit.config.harness import HERE, Problems, Resolved


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder `model` with the config.json of a Llama."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    return made


@pytest.fixture
def resolved(folder: Path) -> Resolved:
    def run(
        text: str = "",
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, str] | None = None,
        *,
        installed: Collection[str] = HERE,
        model_py: str | None = None,
    ) -> Resolution:
        (folder / "serving.properties").write_text(text, encoding="utf-8")
        if model_py is not None:
            (folder / "model.py").write_text(model_py, encoding="utf-8")
        return resolve(folder, environ or {}, flags, installed=installed)

    return run


@pytest.fixture
def problems(resolved: Resolved) -> Problems:
    def run(
        text: str = "",
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, str] | None = None,
        *,
        installed: Collection[str] = HERE,
        model_py: str | None = None,
    ) -> list[str]:
        try:
            resolved(text, environ, flags, installed=installed, model_py=model_py)
        except ConfigErrors as error:
            return str(error).splitlines()
        return []

    return run
