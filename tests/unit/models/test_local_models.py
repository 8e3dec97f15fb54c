"""Folders of this machine are used where they are, and copied whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading

import pytest

from lmi.core import ModelError
from lmi.models import Store, default_cache
from lmi.models.placing import disk_errors, need_space, place
from tests.support.model_folders import model_files, write


def quiet(*_):
    pass


def test_a_folder_is_used_where_it_is(tmp_path):
    folder = write(tmp_path / "model", {**model_files(), ".git/config": b"", "sub/x.py": b""})
    model = Store(tmp_path / "cache").get(str(folder))
    assert model.path == folder
    assert model.revision is None
    assert model.files == tuple(sorted([*model_files(), "sub/x.py"]))
    assert not (tmp_path / "cache").exists()


def test_a_copy_is_the_same_and_leaves_nothing_beside_it(tmp_path):
    folder = write(tmp_path / "model", model_files())
    seen = []
    Store(tmp_path, progress=lambda *step: seen.append(step)).put(folder, f"{tmp_path}/out/copy")
    copy = Store(tmp_path).get(f"{tmp_path}/out/copy")
    assert copy.files == tuple(sorted(model_files()))
    assert all((copy.path / n).read_bytes() == c for n, c in model_files().items())
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["copy"]
    total = sum(map(len, model_files().values()))
    assert seen[-1] == ("copying the model", total, total)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("full", "is there already"),
        ("full/x", "is there already"),
        ("full/x/y", "can't write"),
        ("https://hub/x", "can't put a model to"),
    ],
)
def test_nothing_is_overwritten(tmp_path, target, said):
    folder = write(tmp_path / "model", model_files())
    write(tmp_path / "full", {"x": b"old"})
    target = target if "://" in target else str(tmp_path / target)
    with pytest.raises(ModelError, match=said):
        Store(tmp_path).put(folder, target)
    assert (tmp_path / "full" / "x").read_bytes() == b"old"


def test_an_empty_folder_may_be_the_target(tmp_path):
    folder = write(tmp_path / "model", {"config.json": b"{}"})
    (tmp_path / "empty").mkdir()
    Store(tmp_path).put(folder, str(tmp_path / "empty"))
    assert (tmp_path / "empty" / "config.json").read_bytes() == b"{}"


def test_a_folder_appears_only_when_it_is_whole(tmp_path):
    final = tmp_path / "cache" / "model"

    def half(stage):
        (stage.incoming / "0").write_bytes(b"one")
        stage.finish(stage.incoming / "0", "deep/one")
        (stage.incoming / "1").write_bytes(b"tw")
        assert not final.exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place(final, half, quiet)
    assert not final.exists()

    def rest(stage):
        assert stage.has("deep/one", 3)
        assert not stage.has("deep/one", 4)
        assert list(stage.incoming.iterdir()) == []
        (stage.incoming / "1").write_bytes(b"two")
        stage.finish(stage.incoming / "1", "two")

    place(final, rest, quiet)
    assert (final / "deep/one").read_bytes() == b"one"
    assert (final / "two").read_bytes() == b"two"
    assert sorted(p.name for p in final.parent.iterdir()) == [".model.lock", "model"]


def test_one_fills_a_folder_while_the_others_wait_for_it(tmp_path):
    final = tmp_path / "model"
    waiting = threading.Event()
    filled = []

    def fill(stage):
        filled.append(threading.get_ident())
        assert waiting.wait(10)

    def second():
        place(final, fill, lambda *_: waiting.set())

    thread = threading.Thread(target=second)

    def first(stage):
        thread.start()
        fill(stage)

    place(final, first, quiet)
    thread.join(10)
    assert not thread.is_alive()
    assert filled == [threading.get_ident()]


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path):
    hold = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, tmp_path / ".model.lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
    place(tmp_path / "model", lambda stage: None, quiet)
    assert (tmp_path / "model").is_dir()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "can't write /big: No space left on device; free space there"),
        (errno.EACCES, "can't write /big: Permission denied; it must be writable"),
        (errno.EROFS, "can't write /big: Read-only file system; name a cache"),
        (errno.EIO, "can't write /big: Input/output error$"),
    ],
)
def test_a_disk_error_names_the_path_and_what_to_do(tmp_path, code, said):
    with pytest.raises(ModelError, match=said), disk_errors("write", tmp_path):
        raise OSError(code, os.strerror(code), "/big")


def test_too_little_space_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(ModelError, match=r"GB free and the model needs 1000000000\.0 GB"):
        need_space(tmp_path, 10**18)


def test_the_cache_is_where_the_environment_says():
    assert str(default_cache({"SERVING_DOWNLOAD_DIR": "/a", "XDG_CACHE_HOME": "/b"})) == "/a"
    assert str(default_cache({"XDG_CACHE_HOME": "/b"})) == "/b/lmi/models"
    assert default_cache({}).parts[-3:] == (".cache", "lmi", "models")
