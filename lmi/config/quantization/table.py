"""The table: engine x method x hardware, and how each works or why not.

`lmi check` judges by it, and the same rows stand in `docs/quantization.md`. What vLLM does is that
of 0.32, read from its kernels' own requirements and tried on a processor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from lmi.config.quantization.hardware import Hardware
from lmi.config.quantization.methods import COMPRESSED

ENGINES: Final = ("lmi-dist", "deepspeed", "vllm", "python", "trtllm")
"""The engines that are judged. TensorRT-LLM names and checks its own methods: it has no column."""

TITLES: Final = {
    "lmi-dist": "LMI-Dist",
    "deepspeed": "DeepSpeed",
    "vllm": "vLLM",
    "python": "the handler of transformers",
    "trtllm": "TensorRT-LLM",
}


class Way(StrEnum):
    """How the weights come to be quantised."""

    CHECKPOINT = "checkpoint"
    AT_LOAD = "at load"


@dataclass(frozen=True, slots=True)
class Support:
    """One cell. cpu, gpu: why it does not work there, None where it does. capability: the least of
    a GPU. note: what a user should know where it works. needs: modules that must be importable.
    divides: whether the layers can be divided among ranks.
    """

    cpu: str | None = None
    gpu: str | None = None
    capability: tuple[int, int] = (0, 0)
    note: str = ""
    needs: tuple[str, ...] = ()
    divides: bool = True

    def refused(self, hardware: Hardware | None, ranks: int) -> str | None:
        """Why it does not work, None where it does. hardware None: on none at all."""
        if ranks > 1 and not self.divides:
            return "its layers can't be divided: expected option.tensor_parallel_degree=1"
        if hardware is None:
            return self.cpu if self.cpu is not None and self.gpu is not None else None
        if hardware.kind == "cpu":
            return self.cpu
        if self.gpu is not None:
            return self.gpu
        if hardware.capability is not None and hardware.capability < self.capability:
            major, minor = self.capability
            return f"its kernels need a GPU of compute capability {major}.{minor} or higher"
        return None


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of quantised weights. method: what option.quantize calls it. columns: by engine.

    part: which of the method's rows this is, where it has several. missing: by engine, why one that
    has no column can't; `otherwise` where nothing is said there.
    """

    key: str
    title: str
    method: str
    way: Way
    columns: Mapping[str, Support]
    missing: Mapping[str, str] = field(default_factory=dict)
    otherwise: str = ""
    part: str = ""

    def refused(self, engine: str, hardware: Hardware | None, ranks: int = 1) -> str | None:
        """Why an engine can't, None where it can. ranks: of tensor parallelism."""
        found = self.columns.get(engine)
        if found is not None:
            return found.refused(hardware, ranks)
        return self.missing.get(engine) or self.otherwise or f"{TITLES[engine]} has nothing like it"


_VLLM_ON_CPU: Final = "vLLM has no kernel for it on a CPU"
_VLLM_NO_3_BITS: Final = "vLLM reads 4 and 8 bits only"
_MAKE_IT: Final = "vLLM serves the result: make it with `lmi quantize --method smoothquant`"
_NO_MORE: Final = "nothing reads it any more; quantise the model anew with gptq or awq"
_WIDENED: Final = "widened in blocks"
_GPTQMODEL: Final = ("gptqmodel", "optimum")
_DECOMPRESSED: Final = Support(
    note="decompressed, so no memory is saved", needs=("compressed_tensors",)
)
_NO_BITSANDBYTES: Final = {"vllm": "vLLM has no bitsandbytes since 0.32"}


def _ours(
    vllm: Support | None, python: Support | None = None, note: str = ""
) -> dict[str, Support]:
    """LMI-Dist and DeepSpeed, which read by the same readers, and what else can."""
    columns = {"lmi-dist": Support(note=note), "deepspeed": Support(note=note)}
    if vllm is not None:
        columns["vllm"] = vllm
    if python is not None:
        columns["python"] = python
    return columns


def _library(name: str) -> dict[str, Support]:
    """Layers of a library that transformers puts in place: whole, on one rank."""
    whole = Support(note="on one rank", needs=(name,), divides=False)
    return {"lmi-dist": whole, "deepspeed": whole, "python": Support(needs=(name,))}


ROWS: Final = (
    Row(
        "gptq3",
        "GPTQ, 3 bits",
        "gptq",
        Way.CHECKPOINT,
        _ours(None, Support(needs=_GPTQMODEL)),
        {"vllm": _VLLM_NO_3_BITS},
        part="3",
    ),
    Row(
        "gptq4",
        "GPTQ, 4 bits",
        "gptq",
        Way.CHECKPOINT,
        {
            **_ours(Support(capability=(6, 0)), Support(needs=_GPTQMODEL)),
        },
        part="4",
    ),
    Row(
        "gptq8",
        "GPTQ, 8 bits",
        "gptq",
        Way.CHECKPOINT,
        _ours(Support(cpu=_VLLM_ON_CPU, capability=(7, 5)), Support(needs=_GPTQMODEL)),
        part="8 bits",
    ),
    Row(
        "awq4",
        "AWQ, 4 bits",
        "awq",
        Way.CHECKPOINT,
        {**_ours(Support(capability=(7, 5)), Support(needs=_GPTQMODEL))},
    ),
    Row(
        "W8A8",
        "W8A8 (compressed-tensors, int-quantized)",
        COMPRESSED,
        Way.CHECKPOINT,
        _ours(Support(capability=(7, 5)), _DECOMPRESSED),
        part="W8A8",
    ),
    Row(
        "W8A16-whole",
        "W8A16 (compressed-tensors, int-quantized)",
        COMPRESSED,
        Way.CHECKPOINT,
        _ours(None, _DECOMPRESSED),
        {"vllm": "vLLM reads W8A16 as pack-quantized only"},
        part="W8A16",
    ),
    Row(
        "W3A16",
        "W3A16 (compressed-tensors, pack-quantized)",
        COMPRESSED,
        Way.CHECKPOINT,
        _ours(None, _DECOMPRESSED),
        {"vllm": _VLLM_NO_3_BITS},
        part="W3A16",
    ),
    Row(
        "W4A16",
        "W4A16 (compressed-tensors, pack-quantized)",
        COMPRESSED,
        Way.CHECKPOINT,
        _ours(Support(capability=(7, 5)), _DECOMPRESSED),
        part="W4A16",
    ),
    Row(
        "W8A16",
        "W8A16 (compressed-tensors, pack-quantized)",
        COMPRESSED,
        Way.CHECKPOINT,
        _ours(Support(cpu=_VLLM_ON_CPU, capability=(7, 5)), _DECOMPRESSED),
        part="W8A16",
    ),
    Row(
        "fp8",
        "FP8 (compressed-tensors, fp8, fbgemm_fp8, ModelOpt)",
        "fp8",
        Way.CHECKPOINT,
        _ours(
            Support(
                cpu=_VLLM_ON_CPU,
                capability=(7, 5),
                note="widened below 8.9",
            ),
            Support(
                cpu="transformers computes in FP8 on GPUs only",
                capability=(8, 9),
                needs=("accelerate",),
            ),
            note=_WIDENED,
        ),
    ),
    Row(
        "bitsandbytes8",
        "bitsandbytes, 8 bits",
        "bitsandbytes8",
        Way.CHECKPOINT,
        _library("bitsandbytes"),
        _NO_BITSANDBYTES,
    ),
    Row(
        "bitsandbytes4",
        "bitsandbytes, 4 bits",
        "bitsandbytes4",
        Way.CHECKPOINT,
        _library("bitsandbytes"),
        _NO_BITSANDBYTES,
    ),
    Row(
        "torchao",
        "torchao",
        "torchao",
        Way.CHECKPOINT,
        {**_library("torchao"), "vllm": Support(capability=(7, 5), needs=("torchao",))},
    ),
    Row(
        "marlin",
        "packed for Marlin",
        "marlin",
        Way.CHECKPOINT,
        {},
        otherwise="the layout is that of one GPU kernel; serve the GPTQ checkpoint behind it",
    ),
    Row("squeezellm", "SqueezeLLM", "squeezellm", Way.CHECKPOINT, {}, otherwise=_NO_MORE),
    Row("aqlm", "AQLM", "aqlm", Way.CHECKPOINT, {}, otherwise=_NO_MORE),
    Row(
        "smoothquant at load",
        "SmoothQuant, W8A8",
        "smoothquant",
        Way.AT_LOAD,
        {**_ours(None)},
        {"vllm": _MAKE_IT},
    ),
    Row("int8 at load", "INT8", "int8", Way.AT_LOAD, _ours(None)),
    Row(
        "fp8 at load",
        "FP8",
        "fp8",
        Way.AT_LOAD,
        {
            **_ours(
                Support(capability=(7, 5), note="on a CPU as its fp8_per_channel"), note=_WIDENED
            ),
        },
    ),
    Row(
        "bitsandbytes8 at load",
        "bitsandbytes, 8 bits",
        "bitsandbytes8",
        Way.AT_LOAD,
        _library("bitsandbytes"),
        _NO_BITSANDBYTES,
    ),
    Row(
        "bitsandbytes4 at load",
        "bitsandbytes, 4 bits (NF4)",
        "bitsandbytes4",
        Way.AT_LOAD,
        _library("bitsandbytes"),
        _NO_BITSANDBYTES,
    ),
    Row(
        "torchao_int8 at load",
        "torchao, INT8",
        "torchao_int8",
        Way.AT_LOAD,
        {name: _library("torchao")[name] for name in ("lmi-dist", "deepspeed")},
    ),
    Row(
        "deepspeedfp at load",
        "FP6 and FP8 of DeepSpeed",
        "deepspeedfp",
        Way.AT_LOAD,
        {},
        otherwise="vLLM alone had it, and has it no more; write fp8",
    ),
)
BY_KEY: Final = {row.key: row for row in ROWS}


def works(engine: str, hardware: Hardware | None) -> str:
    """What an engine can do, for the end of a refusal."""
    ways = []
    for way in Way:
        parts: dict[str, dict[str, None]] = {}
        for row in ROWS:
            if row.way is way and row.refused(engine, hardware) is None:
                parts.setdefault(row.method, {}).update({row.part: None} if row.part else {})
        names = [f"{name} ({', '.join(of)})" if of else name for name, of in parts.items()]
        if names:
            ways.append(f"{'as ' if way is Way.CHECKPOINT else ''}{way} {', '.join(names)}")
    return "; ".join(ways) or "nothing"
