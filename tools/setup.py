"""Make or refresh `.venv` from the locks: `python3 tools/setup.py serve|deepspeed|test` (the
Makefile and the images call it).

Only the standard library, and any Python 3 may run it: it finds a CPython that the project
supports, makes the environment, installs uv into it and lets uv install the locked set. A stamp
with the locks' digest makes the second call cost nothing. Torch comes in the cheapest form the
machine can reach: a folder or index of CPU wheels named in LMI_TORCH_LINKS, else the index that uv
picks for this machine's GPU (or its lack of one), else PyPI. The C++ library is built anew when one
of its sources changed; without a compiler there is none, and LMI-Dist computes with torch.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
TESTED = (3, 11)
UNTESTED = (3, 12)
SETS = ("serve", "deepspeed", "test")
LOCKS = ("locks/serve.txt", "locks/deepspeed.txt", "locks/test.txt", "locks/torch.txt")
NATIVE = ROOT / "lmi" / "dist" / "native"
NATIVE_STAMP = VENV / ".lmi-native"


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def fail(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr)
    raise SystemExit(2)


def version_of(python: str) -> "tuple[int, int] | None":
    """(major, minor) of a CPython, None for anything else."""
    code = "import sys; print(sys.implementation.name, *sys.version_info[:2])"
    try:
        words = subprocess.run(
            [python, "-c", code],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
        ).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return (int(words[1]), int(words[2])) if words[0] == b"cpython" else None


def find_python() -> "tuple[str, tuple[int, int]]":
    named = os.environ.get("PYTHON", "")
    names = [named] if named else ["python3.11", "python3", "python", "python3.12"]
    found = [(name, version_of(name)) for name in names if shutil.which(name)]
    for wanted in (TESTED, UNTESTED):
        for name, version in found:
            if version == wanted:
                return name, version
    have = (
        ", ".join(f"{name} is {v[0]}.{v[1]}" if v else f"{name} is no CPython" for name, v in found)
        or "no python3"
    )
    fail(
        f"lmi needs CPython 3.11 (3.12 resolves, untested); here: {have}. "
        "PYTHON=/path/to/python3.11 names one."
    )
    raise AssertionError


def run(*command: str, **extra: str) -> int:
    return subprocess.run(command, check=False, cwd=ROOT, env={**os.environ, **extra}).returncode


def must(*command: str) -> None:
    code = run(*command)
    if code:
        fail(f"exit {code} from: {' '.join(command)}")


def has_torch(version: str) -> bool:
    """Whether .venv holds this torch (of whatever build) and can import it."""
    code = f"import torch, sys; sys.exit(torch.__version__.split('+')[0] != '{version}')"
    command = [str(PYTHON), "-W", "ignore", "-c", code]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


def install_torch(uv: "list[str]") -> None:
    lock = ROOT / "locks" / "torch.txt"
    pins = lock.read_text().splitlines()
    wanted = next(pin.split(" ")[0] for pin in pins if pin.startswith("torch=="))
    version = wanted.partition("==")[2]
    install = [*uv, "pip", "install", "--python", str(PYTHON)]
    links = os.environ.get("LMI_TORCH_LINKS", "")
    if has_torch(version):
        return
    if links:
        say(f"{wanted} from LMI_TORCH_LINKS")
        must(*install, "--no-deps", "--find-links", links, wanted)
        return
    say(
        f"{wanted} for this machine's accelerator from PyTorch's own index, where it can be reached"
    )
    quick = {**os.environ, "UV_HTTP_TIMEOUT": "10", "UV_HTTP_RETRIES": "0"}
    command = [*install, "--quiet", "--torch-backend=auto", wanted]
    subprocess.run(command, check=False, env=quick, stderr=subprocess.DEVNULL)
    if not has_torch(version):
        say("it can't: the package registry's build, which brings CUDA (4.6 GB on disk)")
        say("LMI_TORCH_LINKS=<folder or page of CPU wheels> would save them")
        must(*install, "--no-deps", "-r", str(lock))


def digest_of(paths: "list[Path]") -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def native_digest() -> str:
    sources = [path for path in NATIVE.iterdir() if path.suffix in (".cpp", ".h")]
    return digest_of([ROOT / "setup.py", *sorted(sources)])


def has_native(digest: str) -> bool:
    return NATIVE_STAMP.exists() and NATIVE_STAMP.read_text() == digest


def say_native() -> None:
    if any(NATIVE.glob("*.so")):
        return
    say("the C++ library is not built: LMI-Dist will compute with torch, several times slower")
    say("with a C++ compiler (on Debian and Ubuntu: apt-get install g++), remove .venv/.lmi-native")


def build_native(digest: str) -> None:
    """Needs no registry: the environment's own setuptools compiles in place."""
    say("building the C++ library")
    must(str(PYTHON), "setup.py", "--quiet", "build_ext", "--inplace")
    NATIVE_STAMP.write_text(digest)
    say_native()


def main() -> None:
    # A third of the time; an image, which runs on any machine, asks for all.
    os.environ.setdefault("LMI_NATIVE_TARGETS", "host")
    if len(sys.argv) != 2 or sys.argv[1] not in SETS:
        fail(f"usage: python3 tools/setup.py {'|'.join(SETS)}")
    wanted = sys.argv[1]
    started = time.monotonic()
    version = version_of(str(PYTHON)) if PYTHON.exists() else None
    if version is None:
        name, version = find_python()
        if version == UNTESTED:
            say("CPython 3.12 is resolved but untested")
        say(f"making .venv with {name}")
        if run(name, "-m", "venv", "--clear", str(VENV)):
            fail(f"`{name} -m venv` failed; on Debian and Ubuntu: apt-get install python3-venv")
    if version not in (TESTED, UNTESTED):
        fail(f".venv holds Python {version[0]}.{version[1]}: remove .venv and try again")
    lock = f"locks/{wanted}.txt"
    # The test set holds the others, so its stamp satisfies all.
    stamps = [VENV / f".lmi-{name}" for name in SETS if name in (wanted, "test")]
    current = digest_of([ROOT / name for name in ("pyproject.toml", *sorted(LOCKS))])
    native = native_digest()
    if any(stamp.exists() and stamp.read_text() == current for stamp in stamps):
        if not has_native(native):
            build_native(native)
        return
    if run(str(PYTHON), "-m", "uv", "--version") != 0:
        must(str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv")
    uv = [str(PYTHON), "-m", "uv"]
    install_torch(uv)
    must(
        *uv, "pip", "install", "--python", str(PYTHON), "--no-deps", "--require-hashes", "-r", lock
    )
    must(*uv, "pip", "install", "--python", str(PYTHON), "--no-deps", "--quiet", "-e", ".")
    NATIVE_STAMP.write_text(native)
    say_native()
    (VENV / f".lmi-{wanted}").write_text(current)
    say(f"the {wanted} set is installed ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    main()
