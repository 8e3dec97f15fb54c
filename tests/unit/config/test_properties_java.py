"""The properties reader against the JDK itself."""

import shutil
from pathlib import Path

import pytest

from lmi.config.properties import parse, render
from lmi.core import ConfigError
from tests.unit.config.java.oracle import CORNERS, Assignments, ask_java, texts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("javac") is None, reason="no JDK (javac) on the PATH"),
]


def ours(text: str) -> Assignments | None:
    try:
        return [(found.key, found.value) for found in parse(text)]
    except ConfigError:
        return None


def test_the_reader_agrees_with_the_jdk_on_every_text(tmp_path: Path):
    inputs = [*CORNERS, *texts(seed=3, count=30_000)]
    answers = ask_java(inputs, tmp_path)
    assert sum(answer is None for answer in answers) > 1_000
    assert sum(bool(answer) for answer in answers) > 10_000
    for text, answer in zip(inputs, answers, strict=True):
        assert ours(text) == answer, repr(text)


def test_the_jdk_reads_what_we_write(tmp_path: Path):
    entries = [
        {f"{number} {text}": text, text: "x"}
        for number, text in enumerate(texts(seed=4, count=3_000))
    ]
    read = ask_java([render(each) for each in entries], tmp_path)
    for each, answer in zip(entries, read, strict=True):
        assert answer == ours(render(each))
        assert answer is not None
        assert len(answer) == len(each)
