"""Which TensorRT-LLM is installed here, found without importing it.

Importing `tensorrt_llm` loads CUDA, TensorRT and MPI and takes most of a minute; `find_spec` of a
submodule imports its parent. So the package's folder is found by its own spec, and what it holds
is seen by looking into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

_MODULE = "tensorrt_llm"
_ENGINE_PATH = "_tensorrt_engine"


@dataclass(frozen=True, slots=True)
class Installed:
    """An installed library. engine_path: it compiles and runs TensorRT engines (up to 1.2)."""

    version: str
    engine_path: bool


def installed() -> Installed | None:
    """The library that this interpreter would import, or None where there is none.

    A folder named `tensorrt_llm` without the files of a package, as an interrupted removal leaves
    it, is none; neither is one whose distribution's data is missing.
    """
    spec = find_spec(_MODULE)
    if spec is None or spec.origin is None or not spec.submodule_search_locations:
        return None
    try:
        release = version(_MODULE)
    except PackageNotFoundError:
        return None
    folders = map(Path, spec.submodule_search_locations)
    engine_path = any(_holds_module(folder, _ENGINE_PATH) for folder in folders)
    return Installed(release, engine_path)


def _holds_module(folder: Path, name: str) -> bool:
    return (folder / name / "__init__.py").is_file() or (folder / f"{name}.py").is_file()
