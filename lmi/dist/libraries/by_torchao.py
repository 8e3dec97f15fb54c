"""torchao: INT8 weights with a scale per output, widened in the product."""

from __future__ import annotations

from typing import Any


def settings() -> Any:
    """transformers' `quantization_config` for torchao_int8."""
    from torchao.quantization import Int8WeightOnlyConfig  # type: ignore[import-untyped]
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig(version=2))
