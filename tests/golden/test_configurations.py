"""Every configuration that the reference shows resolves unedited, on the engine that it means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmi.config import ConfigErrors, Resolution, resolve
from lmi.config.resolution import Fate
from tests.golden.config.collection import Configuration, configurations
from tests.golden.refused import REFUSED
from tests.unit.config.harness import ALL

ENGINES = Path(__file__).with_name("engines.json")
LLAMA = '{"architectures": ["LlamaForCausalLM"]}'


def resolved(configuration: Configuration, folder: Path) -> Resolution:
    """The configuration with every engine installed, in a folder with a Llama's config.json."""
    folder.mkdir()
    configuration.write(folder)
    if "config.json" not in configuration.files:
        (folder / "config.json").write_text(LLAMA)
    return resolve(folder, configuration.environment, installed=ALL)


def _name(configuration: Configuration) -> str:
    return configuration.name


ACCEPTED = [each for each in configurations() if each.name not in REFUSED]


@pytest.mark.parametrize("configuration", ACCEPTED, ids=_name)
def test_a_real_configuration_resolves_unedited(
    configuration: Configuration, tmp_path: Path
) -> None:
    found = resolved(configuration, tmp_path / "model")
    recorded = json.loads(ENGINES.read_text())
    assert found.spec.engine == recorded[configuration.name]
    assert not [setting for setting in found.settings if setting.fate is Fate.UNKNOWN]


@pytest.mark.parametrize("configuration", ACCEPTED, ids=_name)
def test_its_settings_rendered_resolve_to_the_same(
    configuration: Configuration, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    first = resolved(configuration, folder)
    (folder / "serving.properties").write_text(first.render())
    assert resolve(folder, {}, installed=ALL).spec == first.spec


def test_a_refused_configuration_is_refused_for_its_listed_reason(tmp_path: Path) -> None:
    by_name = {each.name: each for each in configurations()}
    for index, (name, reason) in enumerate(REFUSED.items()):
        with pytest.raises(ConfigErrors) as caught:
            resolved(by_name[name], tmp_path / str(index))
        assert reason in str(caught.value), name


def test_few_are_refused_but_for_hardware_and_engines_that_are_not_ours() -> None:
    elsewhere = [name for name, reason in REFUSED.items() if "Neuron" in reason or "Java" in reason]
    assert len(REFUSED) - len(elsewhere) <= len(configurations()) // 10
