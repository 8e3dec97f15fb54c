"""Libraries that make the layers of transformers' models low-bit, or read what they made earlier.

    by_bitsandbytes.py  LLM.int8() and NF4
    by_torchao.py       INT8 weights

Each is imported when a configuration or a checkpoint names it, in its module here alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Final

import torch

from lmi.core import ModelError
from lmi.dist.config import DistConfig

# The values of DistConfig.quantize that are a library's.
LIBRARIES: Final = {
    "bitsandbytes8": "bitsandbytes",
    "bitsandbytes4": "bitsandbytes",
    "torchao_int8": "torchao",
}


def library_arguments(
    config: DistConfig, dtype: torch.dtype, *, divided: bool
) -> Mapping[str, Any]:
    """What `from_pretrained` is told, so that it makes a plain checkpoint's layers low-bit; nothing
    where no library is asked for. dtype: of the other layers, and of the products. divided: among
    ranks.

    Raises ConfigError where the library is missing or can't do what is asked.
    """
    library = LIBRARIES.get(config.quantize)
    if library is None:
        return {}
    if find_spec(library) is None:
        raise config.error("quantize", f"{library} to be installed, or a value that needs none")
    if divided:
        raise config.error(
            "tensor_parallel",
            f"1 beside quantize={config.quantize}: layers of {library} can't be divided",
        )
    return {"quantization_config": _MAKERS[library](config, dtype)}


def prepare_library(method: str, where: str, *, divided: bool) -> None:
    """Make the library ready that transformers will read a checkpoint with.

    method: the checkpoint's `quant_method`; others than those of libraries here are left alone.
    where: what messages call that. divided: among ranks. Raises ModelError.
    """
    if method not in _MAKERS:
        return
    if find_spec(method) is None:
        raise ModelError(f"{where}: {method} is not installed, which alone reads such layers")
    if divided:
        raise ModelError(
            f"{where}: layers of {method} can't be divided among ranks: expected tensor_parallel 1"
        )
    if method == "bitsandbytes":
        from lmi.dist.libraries.by_bitsandbytes import prepare

        prepare()


def _bitsandbytes(config: DistConfig, dtype: torch.dtype) -> object:
    from lmi.dist.libraries.by_bitsandbytes import settings

    return settings(config.quantize, dtype)


def _torchao(config: DistConfig, dtype: torch.dtype) -> object:
    del config, dtype
    from lmi.dist.libraries.by_torchao import settings

    return settings()


_MAKERS: Final[dict[str, Callable[[DistConfig, torch.dtype], object]]] = {
    "bitsandbytes": _bitsandbytes,
    "torchao": _torchao,
}
