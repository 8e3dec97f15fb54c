"""Where a model folder says how it is quantised. No torch here.

Today's tools say it in config.json; older ones wrote a file of their own beside it, and some wrote
nothing but that.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lmi.core import ModelError

Values = dict[str, Any]

# Of config.json: transformers' key, and the one that llm-compressor used before it had that.
_KEYS: Final = ("quantization_config", "compression_config")

# Methods whose weights only their own library reads: transformers loads them with it.
BY_LIBRARY: Final = frozenset({"bitsandbytes", "torchao"})


@dataclass(frozen=True, slots=True)
class Quantization:
    """What is said of a checkpoint. values: settings, by the names of `quantization_config`, with
    `quant_method`. where: what messages call them."""

    values: Values
    where: str

    @property
    def method(self) -> str:
        """gptq, awq, compressed-tensors, ...; as the file has it."""
        return str(self.values.get("quant_method"))


def quantization_of(folder: Path, config: Values) -> Quantization | None:
    """What the folder says, or None for a plain checkpoint. config: of its config.json.

    Raises ModelError where a file can't be read or is no object.
    """
    text = config.get("text_config")
    for part, prefix in ((config, ""), (text if isinstance(text, dict) else {}, "text_config.")):
        for key in _KEYS:
            if part.get(key) is not None:
                where = f"{folder}/config.json: {prefix}{key}"
                return Quantization(_object(part[key], where), where)
    for name, normal in _BESIDE.items():
        path = folder / name
        if path.is_file():
            return Quantization(normal(_read(path)), str(path))
    return None


def _auto_gptq(values: Values) -> Values:
    return {"quant_method": "gptq", **values}


def _auto_awq(values: Values) -> Values:
    return {"quant_method": "awq", **values}


def _model_opt(values: Values) -> Values:
    found = values.get("quantization")
    return {"quant_method": "modelopt", **(found if isinstance(found, dict) else {})}


# Files beside config.json, and how each becomes what config.json would hold.
_BESIDE: Final[dict[str, Callable[[Values], Values]]] = {
    "quantize_config.json": _auto_gptq,
    "quant_config.json": _auto_awq,
    "hf_quant_config.json": _model_opt,
}


def _read(path: Path) -> Values:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read: {error}") from error
    return _object(found, str(path))


def _object(found: object, where: str) -> Values:
    if not isinstance(found, dict):
        raise ModelError(f"{where} is {found!r}: expected an object with the key quant_method")
    return found
