"""The stock engine folder of DJL 0.34.0, from its own jar: the peer behind Java.

`unpack` writes the Python files that the jar carries, unchanged, and beside them `stock_shim/`:
names and constructors that the handlers import and that vLLM has moved since (see there).
`options` are what the stock handlers need for vLLM, in each of Java's modes.
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Final

from tests.support.java_build import build

VERSION: Final = "0.34.0"
SHIM: Final = Path(__file__).parent / "stock_shim" / "sitecustomize.py"
ENTRY_POINTS: Final = {
    "rolling": "djl_python.huggingface",
    "async": "djl_python.lmi_vllm.vllm_async_service",
}


def unpack(folder: Path) -> Path:
    """Write the engine folder; the folder. Raises java_build.Unavailable."""
    libraries = Path(build(VERSION).split(":")[1].removesuffix("/*"))
    with zipfile.ZipFile(libraries / f"python-{VERSION}.jar") as jar:
        names = [name for name in jar.namelist() if name.startswith("djl_python")]
        jar.extractall(folder, names)
    shutil.copy(SHIM, folder)
    return folder


def options(
    mode: str, model: Path, dtype: str, max_batch: int, max_model_len: int
) -> dict[str, str]:
    """For `JavaDriver.load`. mode: rolling or async. dtype: fp32 or bf16."""
    given = {
        "entryPoint": ENTRY_POINTS[mode],
        "rolling_batch": "vllm" if mode == "rolling" else "disable",
        "model_id": str(model),
        "task": "text-generation",
        "dtype": dtype,
        "tensor_parallel_degree": "1",
        "max_rolling_batch_size": str(max_batch),
        "max_model_len": str(max_model_len),
        "enforce_eager": "true",
        "enable_prefix_caching": "false",
    }
    return given | ({"async_mode": "true"} if mode == "async" else {})
