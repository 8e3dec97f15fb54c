"""The names of `option.quantize`: those of every LMI release, and what each means here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lmi.config.nearest import Names

NONE: Final = "none"
COMPRESSED: Final = "compressed-tensors"
"""The name of a checkpoint format that holds several methods; which, config.json says."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method. name: what engines are told. synonyms: what LMI and its engines called it."""

    name: str
    doc: str
    synonyms: tuple[str, ...] = ()


METHODS: Final = (
    Method(
        "smoothquant",
        "INT8 weights and activations, with the activations' outliers moved into the weights by a "
        "calibration (Xiao et al., 2022); made at the first start, and kept",
    ),
    Method(
        "int8",
        "INT8 weights, rounded to the nearest as they are loaded",
        ("dynamic_int8", "static_int8"),
    ),
    Method("fp8", "FP8 weights (e4m3)", ("fbgemm_fp8",)),
    Method("gptq", "GPTQ checkpoints: 3, 4 or 8 bits", ("auto_gptq", "gptq_marlin")),
    Method("awq", "AWQ checkpoints: 4 bits", ("auto_awq", "awq_marlin")),
    Method(COMPRESSED, "checkpoints of llm-compressor", ("compressed_tensors",)),
    Method("bitsandbytes8", "INT8 weights by bitsandbytes", ("bitsandbytes",)),
    Method("bitsandbytes4", "4-bit weights (NF4) by bitsandbytes"),
    Method("torchao_int8", "INT8 weights by torchao"),
    Method("torchao", "checkpoints of torchao"),
    Method("marlin", "checkpoints packed for Marlin", ("gptq_marlin_24",)),
    Method("squeezellm", "checkpoints of SqueezeLLM"),
    Method("aqlm", "checkpoints of AQLM"),
    Method("deepspeedfp", "FP6 and FP8 weights by vLLM of 2024"),
)

BY_NAME: Final = {name: each for each in METHODS for name in (each.name, *each.synonyms)}

# vLLM's own, of the releases that choose by the text itself and so record no list (0.10 on).
VLLM: Final = frozenset(
    (
        *("awq", "auto_awq", "awq_marlin", "auto_gptq", "gptq", "gptq_marlin"),
        *("fp8", "fbgemm_fp8", "fp_quant", "modelopt", "modelopt_fp4", "modelopt_mxfp8"),
        *("modelopt_mixed", "humming", "compressed-tensors", "experts_int8", "quark"),
        *("moe_wna16", "torchao", "inc", "mxfp4", "gpt_oss_mxfp4", "deepseek_v4_fp8", "online"),
        *("fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "int8_per_channel_weight_only"),
        *("nvfp4_per_token", "mxfp8"),
    )
)
"""The names that vLLM 0.32 takes."""

VLLM_BEFORE: Final = frozenset(
    (
        *("aqlm", "bitblas", "bitsandbytes", "deepspeedfp", "gguf", "gptq_bitblas"),
        *("gptq_marlin_24",),
        *("hqq", "ipex", "marlin", "neuron_quant", "nvfp4", "petit_nvfp4", "ptpc_fp8", "qqq"),
        *("rtn", "squeezellm", "tpu_int8"),
    )
)
"""Those that earlier releases took and 0.32 does not."""


def nearest(name: str) -> str | None:
    """The method that a misspelt name means, None where none is near."""
    return Names((*BY_NAME, *sorted(VLLM | VLLM_BEFORE))).nearest(name)
