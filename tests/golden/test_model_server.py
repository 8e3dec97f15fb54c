"""A worker behind the DJL model server decides what `lmi serve` decides, whatever is set."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmi.config import ConfigErrors, Front, resolve
from lmi.launch.djl.staged import Staged
from tests.golden.config.collection import Configuration
from tests.golden.test_configurations import ACCEPTED, resolved
from tests.support.java_merge import initialise_map
from tests.unit.config.harness import ALL


def _name(configuration: Configuration) -> str:
    return configuration.name


@pytest.mark.parametrize("features", ["", "vllm", "trtllm"])
@pytest.mark.parametrize("configuration", ACCEPTED, ids=_name)
def test_the_servers_map_changes_nothing(
    configuration: Configuration, features: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    resolved(configuration, folder)
    properties = folder / "serving.properties"
    if not properties.exists():
        properties.write_text("")
    environ = {**configuration.environment}
    if features:
        environ["SERVING_FEATURES"] = features
    told = initialise_map(folder, environ)
    assert _outcome(folder, environ, told) == _outcome(folder, environ, {})


@pytest.mark.parametrize("configuration", ACCEPTED, ids=_name)
def test_its_staging_folder_says_the_same(configuration: Configuration, tmp_path: Path) -> None:
    first = resolved(configuration, tmp_path / "model")
    Staged(first.properties(), first.spec.folder).write(tmp_path)
    staged = Staged.read(tmp_path)
    assert staged is not None
    again = staged.resolve(configuration.environment, ALL)
    assert again.spec == first.spec


def _outcome(folder: Path, environ: dict[str, str], told: dict[str, str]) -> object:
    """The spec and the warnings, or every problem."""
    try:
        found = resolve(folder, environ, parameters=told, installed=ALL, front=Front.DJL)
    except ConfigErrors as errors:
        return str(errors)
    return found.spec, found.warnings
