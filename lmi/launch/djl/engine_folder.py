"""The folder that the DJL model server runs its Python engine from, filled with ours.

The server unpacks its own engine into CACHE/python/VERSION only where nothing has that name, and
takes what it finds there as it is, half-made or not. So ours is made beside and moved there in one
step, and what another program left there is kept under another name.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from lmi.core import ConfigError

ENGINE: Final = "djl_python_engine.py"
PACKAGE: Final = "djl_python"
_MARK: Final = ".lmi"  # says that a folder is ours to replace
_COMPILED: Final = "__pycache__"

log = logging.getLogger("lmi.start")


def cache_folder(environ: Mapping[str, str], home: Path) -> Path:
    """Where the server keeps the engines that it unpacks. home: the user's."""
    named = environ.get("ENGINE_CACHE_DIR") or environ.get("DJL_CACHE_DIR")
    return Path(named) if named else home / ".djl.ai"


def fill(target: Path) -> None:
    """Make `target` the engine folder with our handlers; does nothing where it is already.

    A folder of another release of ours is replaced; anybody else's is renamed to NAME.replaced,
    or to NAME.replaced-2 and so on. Raises ConfigError where the file system refuses.
    """
    try:
        wanted = dict(_sources())
        if _contents(target) == wanted:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        try:
            _write(made, wanted)
            _put(made, target, wanted)
        finally:
            shutil.rmtree(made, ignore_errors=True)  # nothing, where it was moved
    except OSError as error:
        want = f"expected a folder that can be written: {error.strerror or error}"
        raise ConfigError("ENGINE_CACHE_DIR", str(target), "the environment", want) from error


def _sources() -> Iterator[tuple[str, bytes]]:
    """Our files, by their path in the folder."""
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        want = "the package is missing: install lmi again"
        raise ConfigError(PACKAGE, None, sys.executable, want)
    root = Path(package.origin).parent
    yield ENGINE, (root.parent / ENGINE).read_bytes()
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if path.is_file() and _COMPILED not in inside.parts:
            yield f"{PACKAGE}/{inside.as_posix()}", path.read_bytes()


def _contents(folder: Path) -> dict[str, bytes]:
    """A folder's files but for compiled code and our mark; empty where there is no folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and _COMPILED not in path.relative_to(folder).parts
        and path != folder / _MARK
    }


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in {**files, _MARK: b""}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    folder.chmod(0o755)  # the server may run as another user than the one who fills it


def _put(made: Path, target: Path, wanted: Mapping[str, bytes]) -> None:
    """Move `made` to `target`, and what stood there out of the way."""
    if target.exists():
        ours = (target / _MARK).exists()
        aside = made.with_name(f"{made.name}.old") if ours else _free_name(target)
        os.rename(target, aside)
        if ours:
            shutil.rmtree(aside)
        else:
            log.warning("%s held another engine: it is kept as %s", target, aside.name)
    try:
        os.rename(made, target)
    except OSError:
        if _contents(target) != wanted:  # else another server of ours was faster
            raise


def _free_name(target: Path) -> Path:
    name = target.with_name(f"{target.name}.replaced")
    count = 1
    while name.exists():
        count += 1
        name = target.with_name(f"{target.name}.replaced-{count}")
    return name
