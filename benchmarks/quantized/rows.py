"""The rows of the table: a method, how many bits it leaves, and the engine that serves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.offline.subjects import TCMALLOC, Subject
from benchmarks.quantized.models import PLAIN

NATIVE: Final = "lmi-dist native"
HOSTED: Final = "lmi-dist transformers"
DEEPSPEED: Final = "deepspeed"
VLLM: Final = "vllm"
PEER: Final = "transformers"
ENGINES: Final = (NATIVE, HOSTED, DEEPSPEED, VLLM, PEER)

_MODULES: Final = {
    NATIVE: "benchmarks.quantized.engine_lmi",
    HOSTED: "benchmarks.quantized.engine_lmi",
    DEEPSPEED: "benchmarks.quantized.engine_lmi",
    VLLM: "benchmarks.quantized.engine_vllm",
    PEER: "benchmarks.quantized.engine_transformers",
}
_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    NATIVE: {"runtime": "native"},
    HOSTED: {"runtime": "transformers"},
    DEEPSPEED: {"runtime": "transformers", "deepspeed": True},
    VLLM: {},
    PEER: {},
}
_VARIABLES: Final[Mapping[str, Mapping[str, str]]] = {
    VLLM: {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "LD_PRELOAD": str(TCMALLOC) if TCMALLOC.exists() else "",
    },
    DEEPSPEED: {"DS_ACCELERATOR": "cpu"},
}
BASE: Final = "bfloat16"


@dataclass(frozen=True, slots=True)
class Row:
    """method: for the table. bits: of a weight of the linear layers. checkpoint: what it loads."""

    engine: str
    method: str
    bits: int
    checkpoint: str = PLAIN
    dtype: str = "bfloat16"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For the table and the file."""
        return f"{self.engine}, {self.method}"

    def subject(self) -> Subject:
        """Its process."""
        return Subject(
            self.name,
            _MODULES[self.engine],
            self.method,
            options={**_OPTIONS[self.engine], **self.options},
            variables=_VARIABLES.get(self.engine, {}),
        )


def _made(engine: str, *checkpoints: str) -> list[Row]:
    bits = {"gptq-3": 3, "gptq-4": 4, "awq-4": 4}
    return [Row(engine, name, bits.get(name, 8), checkpoint=name) for name in checkpoints]


def _plain(engine: str) -> list[Row]:
    return [Row(engine, BASE, 16), Row(engine, "float32", 32, dtype="float32")]


def _at_load(engine: str, option: str, *methods: str) -> list[Row]:
    bits = {"bitsandbytes4": 4}
    return [
        Row(engine, f"{name} at load", bits.get(name, 8), options={option: name})
        for name in methods
    ]


# Those of an engine stand together: they are loaded at once and take turns.
ROWS: Final = (
    *_plain(NATIVE),
    *_made(NATIVE, "gptq-4", "gptq-3", "gptq-8", "awq-4", "smoothquant", "fp8"),
    *_at_load(NATIVE, "quantize", "int8"),
    *_plain(HOSTED),
    *_made(HOSTED, "gptq-4", "smoothquant"),
    *_at_load(HOSTED, "quantize", "int8", "fp8", "bitsandbytes8", "bitsandbytes4", "torchao_int8"),
    *_plain(DEEPSPEED),
    *_made(DEEPSPEED, "gptq-4", "smoothquant"),
    *_at_load(DEEPSPEED, "quantize", "int8"),
    *_plain(VLLM),
    *_made(VLLM, "gptq-4", "gptq-3", "gptq-8", "awq-4", "smoothquant", "fp8"),
    *_plain(PEER),
    *_at_load(PEER, "quantise", "bitsandbytes8", "bitsandbytes4", "torchao_int8"),
)
QUICK: Final = tuple(
    row
    for row in ROWS
    if row.engine == NATIVE and row.method in (BASE, "gptq-4", "int8 at load", "smoothquant")
)
METHODS: Final = tuple(dict.fromkeys(row.method for row in ROWS))
