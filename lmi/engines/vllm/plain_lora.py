"""A fault of vLLM's plain LoRA operators, which it has on the CPU, mended in the worker.

A row without an adapter has the index -1. The GPU's kernels leave such rows out; the plain ones
take the last slot for it, so that a request for the model alone would be answered with whatever
adapter lies there (seen in 0.32). Here such rows contribute nothing, be it mended there or not.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu

_MENDED = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")


def mend() -> None:
    """To be called once, before the model is loaded."""
    for name in _MENDED:
        mended = _without_adapterless_rows(getattr(lora_ops, name))
        setattr(lora_ops, name, mended)
        setattr(punica_cpu, name, mended)


def _without_adapterless_rows(operator: Any) -> Any:
    """These operators are linear in their inputs (rows, n), so zeros in give zeros out."""

    def mended(
        inputs: torch.Tensor,
        weights: torch.Tensor,
        output: torch.Tensor,
        indices: torch.Tensor,
        *others: Any,
        **named: Any,
    ) -> None:
        inputs = inputs.masked_fill((indices < 0)[: len(inputs), None], 0)
        operator(inputs, weights, output, indices, *others, **named)

    return mended
