"""How a checkpoint says that it is quantised: config.json, and the files that stood beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lmi.config.quantization.methods import COMPRESSED

# Where quantisers wrote before config.json had a place for it.
_BESIDE: Final = {
    "quantize_config.json": "gptq",
    "quant_config.json": "awq",
    "hf_quant_config.json": "modelopt",
}
_MOST_BYTES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Quantised:
    """A quantised checkpoint. method: its quant_method. rows: keys of the table, one for each way
    that its layers are held; empty where the table has none. title: for people."""

    method: str
    rows: tuple[str, ...]
    title: str


def quantised(model: Mapping[str, Any], folder: Path | None) -> Quantised | None:
    """What a config.json says, None where it is not quantised.

    folder: where it stands; a few quantisers wrote a file of their own there instead.
    """
    for holder in (model, model.get("text_config")):
        if isinstance(holder, Mapping):
            for key in ("quantization_config", "compression_config"):
                values = holder.get(key)
                if isinstance(values, Mapping) and values:
                    return _read(values)
    return None if folder is None else _beside(folder)


def _beside(folder: Path) -> Quantised | None:
    for name, method in _BESIDE.items():
        path = folder / name
        if path.is_file() and path.stat().st_size <= _MOST_BYTES:
            try:
                values = json.loads(path.read_bytes())
            except ValueError:
                continue  # whoever loads the model reads it again, and says so
            if isinstance(values, Mapping):
                inner = values.get("quantization")
                known = inner if isinstance(inner, Mapping) else values
                return _read({"quant_method": method, **known})
    return None


def _read(values: Mapping[str, Any]) -> Quantised:
    method = str(values.get("quant_method", "")).lower()
    if not method and "config_groups" in values:
        method = COMPRESSED
    match method:
        case "gptq" | "auto_gptq":
            return _gptq(values)
        case "awq" | "auto_awq":
            return Quantised("awq", _row("awq", values.get("bits", values.get("w_bit", 4))), "AWQ")
        case "compressed-tensors":
            return _compressed(values)
        case "fp8" | "fbgemm_fp8":
            return Quantised("fp8", ("fp8",), "FP8")
        case "modelopt":
            return _modelopt(values)
        case "bitsandbytes":
            four = bool(values.get("load_in_4bit") or values.get("_load_in_4bit"))
            bits = 4 if four else 8
            name = f"bitsandbytes{bits}"
            return Quantised(name, (name,), f"bitsandbytes, {bits} bits")
        case "torchao":
            return Quantised("torchao", ("torchao",), "torchao")
        case "marlin":
            return Quantised("marlin", ("marlin",), "packed for Marlin")
        case "":
            return Quantised("unnamed", (), "a quantization_config without quant_method")
        case _:
            return Quantised(method, (), method)


def _row(method: str, bits: object) -> tuple[str, ...]:
    return (f"{method}{bits}",)


def _gptq(values: Mapping[str, Any]) -> Quantised:
    form = values.get("checkpoint_format") or values.get("format")
    if form == "marlin" or values.get("is_marlin_format"):
        return Quantised("marlin", ("marlin",), "GPTQ, packed for Marlin")
    bits = values.get("bits")
    return Quantised("gptq", _row("gptq", bits), f"GPTQ, {bits} bits")


def _modelopt(values: Mapping[str, Any]) -> Quantised:
    algorithm = str(values.get("quant_algo") or "").upper()
    rows = ("fp8",) if algorithm.startswith("FP8") else ()
    return Quantised("modelopt", rows, f"ModelOpt, {algorithm or 'no quant_algo'}")


def _compressed(values: Mapping[str, Any]) -> Quantised:
    groups = values.get("config_groups")
    schemes = groups.values() if isinstance(groups, Mapping) else ()
    rows = tuple(dict.fromkeys(_schemes(schemes, values.get("format"))))
    return Quantised(COMPRESSED, rows, f"compressed-tensors, {' and '.join(rows) or 'no groups'}")


def _schemes(groups: Any, whole_format: object) -> Iterator[str]:
    for group in groups:
        if not isinstance(group, Mapping):
            continue
        weights = group.get("weights")
        weights = weights if isinstance(weights, Mapping) else {}
        form = group.get("format") or whole_format
        kind, bits = weights.get("type", "int"), weights.get("num_bits", 8)
        acts = group.get("input_activations")
        acts_bits = acts.get("num_bits", 8) if isinstance(acts, Mapping) else 16
        if kind == "float" and bits == 8:
            yield "fp8"
        elif kind == "float":
            yield f"FP{bits}"
        elif form == "marlin-24":
            yield "marlin"
        elif form == "pack-quantized":
            yield f"W{bits}A{acts_bits}"
        else:
            yield f"W{bits}A{acts_bits}-whole" if acts_bits == 16 else f"W{bits}A{acts_bits}"
