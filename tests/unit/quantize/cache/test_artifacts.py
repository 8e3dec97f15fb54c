"""Artifacts: made once, by one process, whole or not at all, and bounded."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lmi.core import ModelError
from lmi.quantize.cache import Cache, locks, passport, room

MADE_OF = {"alpha": 0.5, "files": {"a": "1"}}
NOBODY_WAITS = 1 << 40


def quiet(phase: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


class Maker:
    """Writes an artifact of two files and counts how often."""

    def __init__(self, size: int = 1000) -> None:
        self.calls = 0
        self._size = size

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        assert not list(folder.iterdir())
        (folder / "config.json").write_text("{}")
        (folder / "sub").mkdir()
        (folder / "sub" / "weights").write_bytes(b"w" * self._size)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """No test holds the artifacts of another."""
    yield
    for path in list(locks._in_use):
        os.close(locks._in_use.pop(path))


def get(
    root: Path,
    make: Callable[[Path], None],
    made_of: dict[str, Any] = MADE_OF,
    *,
    limit_bytes: int = NOBODY_WAITS,
    need_bytes: int = 0,
    progress: Callable[[str, int, int], None] = quiet,
) -> Path:
    cache = Cache(root, limit_bytes=limit_bytes)
    return cache.folder(
        "kind", made_of, make, notes={"by": "test"}, need_bytes=need_bytes, progress=progress
    )


def artifacts(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if not path.name.startswith(".")}


def test_what_was_made_is_found_again(tmp_path: Path) -> None:
    maker = Maker()
    first = get(tmp_path / "deep" / "cache", maker)
    assert (first / "sub" / "weights").read_bytes() == b"w" * 1000
    assert get(tmp_path / "deep" / "cache", maker) == first
    assert maker.calls == 1
    assert first.name.startswith("kind-")


def test_what_is_made_of_something_else_is_another_artifact(tmp_path: Path) -> None:
    maker = Maker()
    first = get(tmp_path, maker)
    assert get(tmp_path, maker, {**MADE_OF, "alpha": 0.6}) != first
    # The order of the settings decides nothing.
    assert get(tmp_path, maker, dict(reversed(MADE_OF.items()))) == first
    assert maker.calls == 2


def test_the_passport_says_what_it_was_made_of(tmp_path: Path) -> None:
    found = passport.read(get(tmp_path, Maker()))
    assert found is not None
    assert found.made_of == MADE_OF
    assert sorted(found.files) == ["config.json", "sub/weights"]
    assert found.size == 1002


def test_a_maker_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise ModelError("not finite")

    with pytest.raises(ModelError, match="not finite"):
        get(tmp_path, fail)
    assert {path.name for path in tmp_path.iterdir()} == {".locks"}
    assert get(tmp_path, Maker()).is_dir()


def _cut_short(folder: Path) -> None:
    os.truncate(folder / "sub" / "weights", 999)


def _overwritten(folder: Path) -> None:
    (folder / "sub" / "weights").write_bytes(b"x" + b"w" * 999)


def _removed(folder: Path) -> None:
    (folder / "config.json").unlink()


def _without_passport(folder: Path) -> None:
    (folder / "passport.json").unlink()


def _bad_passport(folder: Path) -> None:
    (folder / "passport.json").write_text('{"files": []}')


def _another_passport(folder: Path) -> None:
    path = folder / "passport.json"
    path.write_text(path.read_text().replace("0.5", "0.7"))


@pytest.mark.parametrize(
    "damage",
    [_cut_short, _overwritten, _removed, _without_passport, _bad_passport, _another_passport],
)
def test_a_damaged_artifact_is_made_again(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    maker = Maker()
    damage(get(tmp_path, maker))
    locks.release(tmp_path, next(iter(artifacts(tmp_path))))
    again = get(tmp_path, maker)
    assert maker.calls == 2
    assert (again / "sub" / "weights").read_bytes() == b"w" * 1000
    assert "was damaged" in caplog.text


def test_the_end_of_a_large_file_is_looked_at_too(tmp_path: Path) -> None:
    maker = Maker(size=400_000)
    made = get(tmp_path, maker)
    with (made / "sub" / "weights").open("r+b") as file:
        file.seek(399_990)
        file.write(b"\0\0\0\0")
    assert "sub/weights is not as it was written" in str(passport.fault(made, MADE_OF))


def test_a_damaged_artifact_that_is_in_use_is_said(tmp_path: Path) -> None:
    made = get(tmp_path, Maker())
    _cut_short(made)
    # Another process's lock is one of another open file, as this is.
    other = os.open(tmp_path / ".locks" / f"{made.name}.use", os.O_RDONLY)
    locks.release(tmp_path, made.name)
    fcntl.flock(other, fcntl.LOCK_SH)
    try:
        with pytest.raises(ModelError, match=r"is damaged \(sub/weights .* in use by another"):
            get(tmp_path, Maker())
    finally:
        os.close(other)


def test_one_makes_while_another_waits_and_says_so(tmp_path: Path) -> None:
    begun, waited = threading.Event(), threading.Event()
    maker, found = Maker(), []

    def slow(folder: Path) -> None:
        begun.set()
        assert waited.wait(60)
        maker(folder)

    def watch(phase: str, done: int, total: int) -> None:
        if phase.startswith("waiting for another process that makes kind-"):
            waited.set()

    first = threading.Thread(target=lambda: found.append(get(tmp_path, slow)))
    first.start()
    assert begun.wait(60)
    found.append(get(tmp_path, maker, progress=watch))
    first.join(60)
    assert waited.is_set()
    assert maker.calls == 1
    assert found[0] == found[1]


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    folders = [get(tmp_path, Maker(), {"number": number}) for number in range(3)]
    for age, folder in enumerate((folders[1], folders[0], folders[2])):
        locks.release(tmp_path, folder.name)
        os.utime(folder, ns=(age, age))
    # Asking for one makes it the latest.
    assert get(tmp_path, Maker(), {"number": 1}) == folders[1]
    locks.release(tmp_path, folders[1].name)
    newest = get(tmp_path, Maker(), {"number": 3}, limit_bytes=3100)
    assert artifacts(tmp_path) == {folders[1].name, folders[2].name, newest.name}


def test_one_in_use_is_never_removed(tmp_path: Path) -> None:
    used = get(tmp_path, Maker(), {"number": 0})
    idle = get(tmp_path, Maker(), {"number": 1})
    locks.release(tmp_path, idle.name)
    os.utime(used, ns=(0, 0))
    newest = get(tmp_path, Maker(), {"number": 2}, limit_bytes=1)
    assert artifacts(tmp_path) == {used.name, newest.name}
    assert passport.fault(used, {"number": 0}) is None


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "models--org--name").mkdir()
    (tmp_path / "notes-2024").mkdir()
    (tmp_path / "notes-2024" / "a.txt").write_text("mine" * 1000)
    get(tmp_path, Maker(), limit_bytes=1)
    assert (tmp_path / "notes-2024" / "a.txt").is_file()
    assert {"models--org--name", "notes-2024"} < artifacts(tmp_path)


def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    for name in (".partial-kind-0", ".trash-kind-1-77"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("half")
    get(tmp_path, Maker())
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == {".locks"}


def test_what_another_process_is_making_is_not_swept(tmp_path: Path) -> None:
    partial = tmp_path / ".partial-kind-0"
    partial.mkdir()
    with locks.made_alone(tmp_path, "kind-0", lambda: None):
        get(tmp_path, Maker())
        assert partial.is_dir()


def test_a_disk_without_room_is_said_before_anything_is_made(tmp_path: Path) -> None:
    maker = Maker()
    idle = get(tmp_path, maker, {"number": 1})
    locks.release(tmp_path, idle.name)
    with pytest.raises(ModelError, match=r"GB free and about 1152921504.6 GB are needed: free"):
        get(tmp_path, maker, need_bytes=1 << 60)
    assert maker.calls == 1
    assert not idle.exists()


def test_a_disk_that_runs_full_is_said(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        (folder / "weights").symlink_to("/dev/full")
        (folder / "weights").write_bytes(b"w" * 100_000)

    with pytest.raises(ModelError, match="No space left on device; free space there or name"):
        get(tmp_path, full)
    assert not artifacts(tmp_path)


@pytest.mark.parametrize("place", ["/sys/lmi-cache", "/dev/null/cache"])
def test_a_cache_that_cannot_be_written_to_is_said(place: str) -> None:
    with pytest.raises(
        ModelError, match=r"can't keep what is made of the model: .*(; it must|; na)"
    ):
        get(Path(place), Maker())


def test_a_read_only_cache_serves_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = get(tmp_path, Maker())
    locks.release(tmp_path, made.name)
    really = os.open

    def read_only(path: Path, flags: int, *mode: int, **more: Any) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return really(path, flags, *mode, **more)

    def no_times(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(os, "utime", no_times)
    assert get(tmp_path, Maker()) == made
    with pytest.raises(ModelError, match="Read-only file system; name a cache that is writable"):
        get(tmp_path, Maker(), {"number": 2})


MAKE_AND_STAY = """
import sys
from pathlib import Path
from lmi.quantize.cache import Cache

def make(folder):
    (folder / "config.json").write_text("{}")
    print("making", flush=True)
    sys.stdin.readline()

Cache(Path(sys.argv[1])).folder(
    "kind", {"alpha": 0.5, "files": {"a": "1"}}, make,
    notes={}, need_bytes=0, progress=lambda *_: None,
)
print("made", flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
def test_a_killed_maker_leaves_nothing_that_is_used(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAKE_AND_STAY, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"making\n"
        assert not artifacts(tmp_path)
        process.kill()
    maker = Maker()
    assert (get(tmp_path, maker) / "sub" / "weights").is_file()
    assert maker.calls == 1


@pytest.mark.slow
def test_what_another_process_uses_is_not_removed_until_it_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAKE_AND_STAY, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"making\n"
        process.stdin.write(b"go on\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"made\n"
        (name,) = artifacts(tmp_path)
        assert not room.remove(tmp_path, name)
        assert passport.fault(tmp_path / name, MADE_OF) is None
        process.stdin.close()
        process.wait(60)
    assert room.remove(tmp_path, name)
    assert not artifacts(tmp_path)
