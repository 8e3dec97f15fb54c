"""bitsandbytes: 8 bits as LLM.int8() (Dettmers et al., 2022), 4 bits as NF4 (Dettmers et al.,
2023)."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import torch

# Packages through which bitsandbytes would fetch code from a hub and run it. It does without.
_FETCHES_CODE: Final = "kernels"
# It says for each product that rows are cast to float16 for LLM.int8(), which is what was asked
# for; and, once, that it did not fetch the code above.
_TALKATIVE: Final = ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops")


def prepare() -> None:
    """Import bitsandbytes without code from elsewhere."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    there = sys.modules.get(_FETCHES_CODE)
    sys.modules[_FETCHES_CODE] = None  # type: ignore[assignment]  # how an import is forbidden
    try:
        import bitsandbytes  # noqa: F401
    finally:
        del sys.modules[_FETCHES_CODE]
        if there is not None:
            sys.modules[_FETCHES_CODE] = there


def settings(quantize: str, dtype: torch.dtype) -> Any:
    """transformers' `quantization_config` for bitsandbytes8 or bitsandbytes4 (NF4).

    dtype: in which 4-bit weights are multiplied.
    """
    from transformers import BitsAndBytesConfig

    prepare()
    if quantize == "bitsandbytes8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
