"""Fingerprints: of the content, read once for as long as the files stay as they are."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from lmi.core import ModelError
from lmi.quantize.cache import fingerprint


class Watched:
    """Takes a fingerprint and notes whether anything had to be read."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.read = False

    def __call__(self, folder: Path, *names: str) -> dict[str, str]:
        self.read = False
        return fingerprint(folder, names, self._root, self._progress)

    def _progress(self, phase: str, done: int, total: int) -> None:
        self.read = True
        assert 0 <= done <= total


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a.safetensors").write_bytes(b"a" * 1000)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def of(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "cache")


def test_it_is_the_content_of_the_files_asked_for(model: Path, of: Watched) -> None:
    assert of(model, "a.safetensors") == {"a.safetensors": hashlib.sha256(b"a" * 1000).hexdigest()}
    assert of.read


def test_a_second_time_nothing_is_read(model: Path, of: Watched) -> None:
    first = of(model, "config.json", "a.safetensors")
    assert of(model, "a.safetensors", "config.json") == first
    assert not of.read


def test_a_copy_has_the_same(model: Path, of: Watched, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in model.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert of(copy, "a.safetensors") == of(model, "a.safetensors")


def test_a_changed_byte_is_seen_even_where_size_and_time_are_as_before(
    model: Path, of: Watched
) -> None:
    first = of(model, "a.safetensors")
    path = model / "a.safetensors"
    before = path.stat()
    path.write_bytes(b"a" * 999 + b"b")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert of(model, "a.safetensors") != first


def test_notes_that_cannot_be_read_cost_a_reading(model: Path, of: Watched, tmp_path: Path) -> None:
    first = of(model, "a.safetensors")
    (note,) = (tmp_path / "cache" / ".digests").iterdir()
    for content in (b"", b"[1]", b'{"a.safetensors": 3}', b"\xff"):
        note.write_bytes(content)
        assert of(model, "a.safetensors") == first
        assert of.read


def test_a_cache_that_cannot_be_written_to_costs_a_reading(model: Path) -> None:
    of = Watched(Path("/dev/null/cache"))
    assert of(model, "config.json") == of(model, "config.json")
    assert of.read


def test_a_file_that_is_gone_is_named(model: Path, of: Watched) -> None:
    with pytest.raises(ModelError, match=r"b\.safetensors can't be read: No such file"):
        of(model, "b.safetensors")
