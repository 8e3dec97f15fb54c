"""The collection of real configurations is whole: sources named, texts readable, nothing twice."""

import re
from collections import Counter

from lmi.config.properties import parse
from tests.golden.config.collection import configurations, environments


def test_the_collection_covers_every_release_line():
    assert len(configurations()) >= 60
    lines = {configuration.version for configuration in configurations()}
    assert lines >= {f"0.{minor}" for minor in range(25, 37)}


def test_each_configuration_is_named_once_and_has_a_source():
    names = Counter(configuration.name for configuration in configurations())
    assert [name for name, count in names.items() if count > 1] == []
    for configuration in configurations():
        assert re.search(r"/|documentation|LMI", configuration.source), configuration.name
        assert configuration.files or configuration.environment, configuration.name


def test_no_configuration_stands_there_twice():
    seen: dict[tuple[object, ...], str] = {}
    for configuration in configurations():
        pairs = {each.key: each.value for each in parse(configuration.properties or "")}
        content = (
            frozenset(pairs.items()),
            frozenset(configuration.environment.items()),
            configuration.has_model_py,
        )
        assert content not in seen, (configuration.name, seen[content])
        seen[content] = configuration.name


def test_each_text_is_ascii_properties_that_assign_something():
    for configuration in configurations():
        text = configuration.properties
        if text is not None:
            assert text.isascii(), configuration.name
            assert parse(text), configuration.name


def test_no_placeholder_is_left_in_a_value():
    for configuration in configurations():
        values = [each.value for each in parse(configuration.properties or "")]
        for value in (*values, *configuration.environment.values()):
            assert not re.search(r"<your|\{\{|\.\.\.|<hf|<my", value), (configuration.name, value)


def test_the_environments_of_platforms_are_whole():
    found = environments()
    assert len(found) >= 6
    for environment in found:
        assert environment.platform
        assert "PATH" in environment.variables, environment.name
        assert all(isinstance(value, str) for value in environment.variables.values())
