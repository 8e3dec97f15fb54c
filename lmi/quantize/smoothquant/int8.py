"""Weights of 8 bits with one scale per output, and what config.json says about them.

The format is compressed-tensors' "int-quantized", scheme W8A8 with a scale per token that is found
at run time, as llm-compressor writes it.
"""

from __future__ import annotations

from typing import Any, Final

import torch

LARGEST: Final = 127  # -128 stays unused: the range is symmetric
FORMAT_VERSION: Final = "0.17.0"  # the compressed-tensors release whose fields these are


def quantise(weight: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, in) float32 -> values (out, in) int8 and scales (out, 1) in `dtype`.

    The values are made with the scales as they are stored, so that their rounding costs nothing.
    """
    # The smallest scale that still has several bits in half precision; a row of zeros needs one.
    least = torch.finfo(dtype).tiny / 16
    scales = (weight.abs().amax(1, keepdim=True) / LARGEST).clamp(min=least).to(dtype)
    values = (weight / scales.float()).round().clamp(-LARGEST, LARGEST)
    return values.to(torch.int8), scales


def quantization_config(ignore: list[str]) -> dict[str, Any]:
    """config.json's `quantization_config`. ignore: the linear layers that are not quantised."""
    return {
        "config_groups": {
            "group_0": {
                "format": "int-quantized",
                "input_activations": {
                    **_scheme("token"),
                    "dynamic": True,
                    "observer": None,
                },
                "output_activations": None,
                "targets": ["Linear"],
                "weights": {**_scheme("channel"), "dynamic": False, "observer": "minmax"},
            }
        },
        "format": "int-quantized",
        "global_compression_ratio": None,
        "ignore": ignore,
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "sparsity_config": {},
        "transform_config": {},
        "version": FORMAT_VERSION,
    }


def _scheme(strategy: str) -> dict[str, Any]:
    return {
        "actorder": None,
        "block_structure": None,
        "group_size": None,
        "num_bits": 8,
        "observer_kwargs": {},
        "strategy": strategy,
        "symmetric": True,
        "type": "int",
    }
