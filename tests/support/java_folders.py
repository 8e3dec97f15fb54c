"""Model folders and the engine folder for Java, made for a test."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.support.java_build import ROOT, engine_folder
from tests.support.serving import DEMO

HANDLERS = ROOT / "handlers"
# Java asks for a file of Python, or for the name of one: any of the stock ones means our engines.
_GENERATES = {"option.entryPoint": "djl_python.huggingface"}
_TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


def engine_cache(root: Path, version: str) -> Path:
    """A cache folder (DJL_CACHE_DIR) in which `handlers/` is DJL's engine folder."""
    cache = root / "cache"
    shutil.copytree(HANDLERS, engine_folder(cache, version), ignore=_not_code)
    return cache


def echo_folder(folder: Path, options: Mapping[str, str] | None = None) -> Path:
    """A model that the echo engine plays."""
    return write(folder, {"engine": "echo", **_GENERATES, **(options or {})})


def demo_folder(folder: Path, options: Mapping[str, str] | None = None) -> Path:
    """The demo model, for LMI-Dist, with a chat template; its files are linked."""
    folder.mkdir(parents=True)
    for file in DEMO.iterdir():
        if file.suffix in (".json", ".safetensors"):
            (folder / file.name).symlink_to(file)
    (folder / "chat_template.jinja").write_text(_TEMPLATE)
    own = {"engine": "lmi-dist", "option.threads": "1"}
    return write(folder, {**own, **_GENERATES, **(options or {})})


def handler_folder(folder: Path, code: str, options: Mapping[str, str] | None = None) -> Path:
    """A model that is a user's model.py."""
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(code)
    return write(folder, {"engine": "Python", **(options or {})})


def write(folder: Path, properties: Mapping[str, str]) -> Path:
    """Write a folder's serving.properties; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{name}={value}\n" for name, value in properties.items()]
    (folder / "serving.properties").write_text("".join(lines))
    return folder


def _not_code(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "__pycache__" or name.endswith(".md")]
