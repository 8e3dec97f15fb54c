"""config.json of a model of the Llama family, as our own decoder reads it. No torch here.

What the decoder does not know is never guessed: `Unfit` says what it is, and transformers' own
model is used instead. Tensors that no layer of ours takes are found later, by the loader.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lmi.core import ModelError
from lmi.dist.decoder.quantization import BY_LIBRARY, Quantization, quantization_of


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why the decoder can't run a model."""

    reason: str


class Surplus(ModelError):
    """The checkpoint has tensors that belong to no layer of ours."""


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding (Su et al., 2021), as `lmi.dist.decoder.rope` computes it.

    kind: default, linear, llama3 or yarn. theta: the base. size: leading numbers of a head that are
    rotated. settings: the further numbers of the kind, by the names of config.json.
    """

    kind: str
    theta: float
    size: int
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """The shape of a model of the Llama family.

    windows: per layer, tokens that a token sees with itself, or None for all. experts and
    experts_per_token: of a mixture (Mixtral), else 0. query_key_norm: an RMSNorm per head before
    the rotation (Qwen3). max_positions: tokens the model was made for. eos_ids: its end tokens.
    quantization: None for a plain checkpoint.
    """

    kind: str
    vocab_size: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    epsilon: float
    rope: Rope
    windows: tuple[int | None, ...]
    max_positions: int
    tied: bool
    query_key_norm: bool
    experts: int
    experts_per_token: int
    dtype: str | None
    eos_ids: frozenset[int]
    quantization: Quantization | None


# What a family's own configuration class assumes where config.json is silent.
_SHARED: Final[dict[str, Any]] = {
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
_FAMILIES: Final[dict[str, dict[str, Any]]] = {
    "llama": {},
    "mistral": {"sliding_window": 4096, "num_key_value_heads": 8},
    "qwen2": {"num_key_value_heads": 32},
    "qwen3": {"num_key_value_heads": 32, "head_dim": 128},
    "mixtral": {
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
}
FAMILIES: Final = tuple(_FAMILIES)

_ROPE_SETTINGS: Final = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
    "yarn": ("factor", "original_max_position_embeddings"),
}

_COUNTS: Final = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError, naming the file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path.parent}: no {path.name} there; expected a Hugging Face model folder"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object")
    return found


def read_decoder_config(folder: Path) -> DecoderConfig | Unfit:
    """What the decoder makes of a model folder. Raises ModelError where config.json is broken."""
    raw = read_json(folder / "config.json")
    kind = raw.get("model_type")
    if not isinstance(kind, str):
        raise ModelError(f"{folder}/config.json names no model_type")
    if kind not in _FAMILIES:
        return Unfit(f"model_type {kind} is not one of {', '.join(FAMILIES)}")
    values = {**_SHARED, **_FAMILIES[kind], **{k: v for k, v in raw.items() if v is not None}}
    if "sliding_window" in raw and raw["sliding_window"] is None:
        values["sliding_window"] = None
    unknown = _unknown(values)
    if unknown is not None:
        return unknown
    for name in _COUNTS:
        if not isinstance(values.get(name), int) or values[name] < 1:
            raise ModelError(
                f"{folder}/config.json: {name}={values.get(name)!r}: expected a whole number from 1"
            )
    quantization = quantization_of(folder, raw)
    if quantization is not None and quantization.method in BY_LIBRARY:
        return Unfit(f"its weights are made for the library {quantization.method}")
    heads = values["num_attention_heads"]
    size = values.get("head_dim") or values["hidden_size"] // heads
    rope = _rope(values, size)
    if isinstance(rope, Unfit):
        return rope
    return DecoderConfig(
        kind=kind,
        vocab_size=values["vocab_size"],
        hidden=values["hidden_size"],
        intermediate=values["intermediate_size"],
        layers=values["num_hidden_layers"],
        heads=heads,
        kv_heads=values.get("num_key_value_heads") or heads,
        head_size=size,
        epsilon=float(values["rms_norm_eps"]),
        rope=rope,
        windows=_windows(kind, values),
        max_positions=values["max_position_embeddings"],
        tied=bool(values["tie_word_embeddings"]),
        query_key_norm=kind == "qwen3",
        experts=values.get("num_local_experts", 0) if kind == "mixtral" else 0,
        experts_per_token=values.get("num_experts_per_tok", 0) if kind == "mixtral" else 0,
        dtype=values.get("dtype") or values.get("torch_dtype"),
        eos_ids=_eos_ids(folder, raw),
        quantization=quantization,
    )


def _unknown(values: dict[str, Any]) -> Unfit | None:
    """What would change the model's numbers in a way the decoder does not know."""
    if values.get("auto_map"):
        return Unfit("the model brings code of its own (auto_map)")
    if values["hidden_act"] not in ("silu", "swish"):
        return Unfit(f"its activation is {values['hidden_act']}")
    if values.get("alternating_attention") or values.get("attn_logit_softcapping"):
        return Unfit("its attention is of another kind")
    return None


def _windows(kind: str, values: dict[str, Any]) -> tuple[int | None, ...]:
    layers = values["num_hidden_layers"]
    window = values.get("sliding_window")
    if kind == "llama":
        window = None
    if kind not in ("qwen2", "qwen3"):
        return (window,) * layers
    if not values.get("use_sliding_window"):
        return (None,) * layers
    kinds = values.get("layer_types") or [
        "sliding_attention" if index >= values.get("max_window_layers", 28) else "full_attention"
        for index in range(layers)
    ]
    return tuple(window if name == "sliding_attention" else None for name in kinds)


def _rope(values: dict[str, Any], head_size: int) -> Rope | Unfit:
    settings = dict(values.get("rope_parameters") or values.get("rope_scaling") or {})
    kind = settings.get("rope_type") or settings.get("type") or "default"
    theta = float(settings.get("rope_theta") or values["rope_theta"])
    share = settings.get("partial_rotary_factor") or values.get("partial_rotary_factor") or 1.0
    wanted = _ROPE_SETTINGS.get(kind)
    if wanted is None:
        return Unfit(f"its rotary embedding is of type {kind}")
    if kind == "yarn" and settings.get("factor") is None:
        original = settings.get("original_max_position_embeddings")
        settings["factor"] = values["max_position_embeddings"] / original if original else None
    missing = [name for name in wanted if not isinstance(settings.get(name), int | float)]
    if missing:
        return Unfit(f"its rotary embedding of type {kind} lacks {missing[0]}")
    return Rope(kind, theta, int(head_size * share), settings)


def _eos_ids(folder: Path, raw: dict[str, Any]) -> frozenset[int]:
    """Every end token that config.json and generation_config.json name."""
    sources = [raw]
    if (folder / "generation_config.json").is_file():
        sources.append(read_json(folder / "generation_config.json"))
    found: set[int] = set()
    for source in sources:
        value = source.get("eos_token_id")
        found.update([value] if isinstance(value, int) else value or [])
    return frozenset(found)
