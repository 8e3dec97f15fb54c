"""Where the DJL model server is installed, and which release of its Python engine it brings.

Its package puts a launcher on the path and jars under /usr/local/djl-serving-RELEASE/lib. The jar
of the Python engine says its own version, which names the folder that our handlers must stand in.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Final

from lmi.config.properties import parse
from lmi.core import ConfigError

HOME: Final = "DJL_SERVING_HOME"
"""The variable that names the server's folder, the one that holds bin and lib."""

LAUNCHER: Final = "djl-serving"
_PACKAGES: Final = Path("/usr/local")
_VERSION_FILE: Final = "native/lib/python.properties"  # in the jar
_RELEASE: Final = re.compile(r"(\d+)\.(\d+)")
_ASYNC_SINCE: Final = (0, 33)


@dataclass(frozen=True, slots=True)
class JavaServer:
    """An installed server. version: of its Python engine, such as 0.36.0."""

    launcher: Path
    version: str

    @property
    def has_async_mode(self) -> bool:
        """Whether it can talk to a worker about each request by itself."""
        match = _RELEASE.match(self.version)
        return match is not None and (int(match[1]), int(match[2])) >= _ASYNC_SINCE


def find(environ: Mapping[str, str], packages: Path = _PACKAGES) -> JavaServer | None:
    """The server that is installed here; None where there is none.

    packages: the folder that its package is unpacked in. Raises ConfigError where DJL_SERVING_HOME
    names no server, and where a launcher is found but not the jar of the Python engine.
    """
    home = environ.get(HOME)
    if home:
        launcher: Path | None = Path(home, "bin", LAUNCHER)
        want = f"expected the folder of the DJL model server, with bin/{LAUNCHER} and lib"
        if launcher is None or not launcher.is_file():
            raise ConfigError(HOME, home, HOME, want)
    else:
        found = which(LAUNCHER, path=environ.get("PATH"))
        launcher = None if found is None else Path(found)
        want = f"no lib/python-*.jar beside it; set {HOME} to the folder that holds bin and lib"
    if launcher is None:
        return None
    for jar in _jars(launcher, packages if not home else None):
        version = _version(jar)
        if version is not None:
            return JavaServer(launcher, version)
    raise ConfigError(HOME, home, HOME if home else str(launcher), want)


def _jars(launcher: Path, packages: Path | None) -> Iterator[Path]:
    """Jars of the Python engine: those beside the launcher first, else the newest package's."""
    yield from sorted(launcher.resolve().parent.parent.glob("lib/python-*.jar"))
    if packages is not None:
        yield from sorted(packages.glob("djl-serving-*/lib/python-*.jar"), reverse=True)


def _version(jar: Path) -> str | None:
    """The version that a jar's engine folder is called by; None where it is another jar."""
    try:
        with zipfile.ZipFile(jar) as archive:
            text = archive.read(_VERSION_FILE).decode("utf-8", "replace")
    except (OSError, zipfile.BadZipFile, KeyError):
        return None
    return next((entry.value for entry in parse(text) if entry.key == "version"), None)
