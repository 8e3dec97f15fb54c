"""Compile the Java driver against DJL's real classes, once for each of their versions.

What is built stays in `build/java/`, in a folder named after the digest of the sources, so that
only a change of them costs Maven's ten seconds again. Where no JDK, no Maven or no repository of
artefacts is at hand, `Unavailable` says which.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "tests" / "java"
BUILDS = ROOT / "build" / "java"
VERSIONS = ("0.25.0", "0.34.0")
_MAVEN_SECONDS = 300.0  # cold: some twenty jars and Maven's own plugins, over a slow network


class Unavailable(Exception):
    """The driver can't be built on this machine; the message says why, in a line."""


def build(version: str) -> str:
    """The class path of the driver over DJL `version`; raises Unavailable."""
    folder = BUILDS / f"{version}-{_digest()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes run side by side
        if not (folder / "done").exists():
            _compile(version, folder)
            (folder / "done").touch()
    return f"{folder / 'classes'}:{folder / 'lib'}/*"


def engine_folder(cache: Path, version: str) -> Path:
    """Where DJL looks for the Python engine, below what DJL_CACHE_DIR names."""
    return cache / "python" / version


def _compile(version: str, folder: Path) -> None:
    for tool, package in (("java", "a JDK"), ("javac", "a JDK"), ("mvn", "Maven")):
        if shutil.which(tool) is None:
            raise Unavailable(f"{package} is not installed: there is no `{tool}` on the PATH")
    command = ["mvn", "-q", "-B", "-f", str(PROJECT / "pom.xml"), "-P", f"djl-{version}"]
    command += ["compile", f"-Doutput={folder}"]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=_MAVEN_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"Maven was not done after {_MAVEN_SECONDS:.0f} s") from error
    if run.returncode:
        if not any((folder / "lib").glob("python-*.jar")) and not (folder / "classes").exists():
            lines = [line for line in run.stdout.splitlines() if line.startswith("[ERROR]")]
            raise Unavailable(f"Maven could not bring DJL {version}: {lines[:1]}")
        raise RuntimeError(f"the driver does not compile:\n{run.stdout}")


def _digest() -> str:
    files = [PROJECT / "pom.xml", *sorted((PROJECT / "src").rglob("*.java"))]
    content = b"\0".join(file.read_bytes() for file in files)
    return hashlib.sha256(content).hexdigest()[:12]
