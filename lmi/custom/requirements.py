"""A model's `requirements.txt`, installed where only that model's code sees it.

Into a virtual environment beside the installation's own: what is installed already counts, the
rest is added, and nothing of the installation is touched. It is kept by what it was made of, so
that a second start installs nothing. As in the reference, an installation that fails is a warning
and the code is loaded anyway: what is missing is named then.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from lmi.custom.spec import Progress, Requirements

FILE: Final = "requirements.txt"
_FOLDER: Final = "requirements"  # packages for where there is no index
_OFFLINE: Final = "DJL_OFFLINE"
_SECONDS: Final = 1800.0  # large wheels over a slow network
_SHOWN: Final = 3  # lines of pip's complaint that are repeated

log = logging.getLogger("lmi.custom")


def find_requirements(folder: Path, environ: Mapping[str, str]) -> Requirements | None:
    """What a model's folder asks for, None for nothing.

    A folder `requirements` beside the file may hold packages. `DJL_OFFLINE=true` keeps pip off the
    index; without such a folder it then installs no dependencies.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    links = folder / _FOLDER
    has_links = links.is_dir()
    offline = environ.get(_OFFLINE, "").lower() == "true"
    return Requirements(
        file=file,
        find_links=links if has_links else None,
        index=not (offline and has_links),
        dependencies=has_links or not offline,
    )


def install(requirements: Requirements, python: str, cache: Path, progress: Progress) -> Path:
    """Install what is required; returns the folder to be put on the import path.

    python: the interpreter that the packages are for. cache: where environments are kept.
    """
    content = requirements.file.read_bytes()
    target = cache / _digest(requirements, content, python)
    site = target / "site"
    with _locked(cache, target.name):
        if site.is_dir():
            return site
        progress(f"installing {FILE}", 0, 0)
        log.info("installing %s", requirements.file)
        problem = _install(requirements, python, target)
        if problem is not None:
            log.warning("%s could not be installed: %s", requirements.file, problem)
    return site if site.is_dir() else target / "absent"


def _install(requirements: Requirements, python: str, target: Path) -> str | None:
    """Build the environment; a line about what went wrong, else None."""
    shutil.rmtree(target, ignore_errors=True)
    problem = _run([python, "-m", "venv", "--without-pip", str(target)])
    if problem is not None:
        return problem
    packages = next(target.glob("lib/python*/site-packages"))
    # Packages of the installation are found as installed, but never changed: they are outside.
    (packages / "_installation.pth").write_text("\n".join(_sites(python)) + "\n")
    command = [python, "-m", "pip", "--python", str(target / "bin" / "python"), "install"]
    command += ["--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["-r", str(requirements.file)]
    if requirements.find_links is not None:
        command += ["--find-links", str(requirements.find_links)]
    if not requirements.index:
        command.append("--no-index")
    if not requirements.dependencies:
        command.append("--no-deps")
    problem = _run(command)
    if problem is None:
        (packages / "_installation.pth").unlink()
        packages.rename(target / "site")
    return problem


def _sites(python: str) -> list[str]:
    """The folders that an interpreter finds installed packages in."""
    code = "import site, sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.split("\n")[:1]


def _run(command: list[str]) -> str | None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {_SECONDS:g} s"
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines()
    return " / ".join(lines[-_SHOWN:]) or f"exit code {done.returncode}"


def _digest(requirements: Requirements, content: bytes, python: str) -> str:
    parts = [content, python.encode(), repr(requirements).encode()]
    if requirements.find_links is not None:
        names = sorted(path.name for path in requirements.find_links.iterdir())
        parts.append("\n".join(names).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


@contextlib.contextmanager
def _locked(cache: Path, name: str) -> Iterator[None]:
    """One process at a time makes an environment; the others find it made."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def default_cache(environ: Mapping[str, str]) -> Path:
    """Where environments are kept unless told otherwise."""
    base = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "lmi" / "requirements"
