"""Which layers follow which norm, family by family: what SmoothQuant has to know of a model.

A norm's gain can be divided, channel by channel, by what the columns of the linear layers behind it
are multiplied by. That holds where these layers are all that reads the norm, and where its gain is
a vector in the file. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lmi.core import ModelError


@dataclass(frozen=True, slots=True)
class Group:
    """A norm and all linear layers that read what it gives, by their names in a decoder layer."""

    norm: str
    linears: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """A family's decoder layers.

    groups: its smoothed norms. offset: what is added to a norm's weight to make its gain (Gemma
    stores the gain less one). head: the output layer in the checkpoint, which stays as it is.
    needs: settings of config.json without which the groups do not hold, and their defaults.
    """

    groups: tuple[Group, ...]
    offset: float = 0.0
    head: str = "lm_head"
    needs: tuple[tuple[str, bool], ...] = ()


_QKV: Final = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_GATED: Final = ("mlp.gate_proj", "mlp.up_proj")
_ATTENTION: Final = Group("input_layernorm", _QKV)
_LLAMA: Final = (_ATTENTION, Group("post_attention_layernorm", _GATED))
# A second norm stands behind the attention there, before the sum: it is left alone.
_GEMMA2: Final = (_ATTENTION, Group("pre_feedforward_layernorm", _GATED))

FAMILIES: Final[Mapping[str, Family]] = {
    "llama": Family(_LLAMA),
    "mistral": Family(_LLAMA),
    "qwen2": Family(_LLAMA),
    "qwen3": Family(_LLAMA),
    "granite": Family(_LLAMA),
    "gemma": Family(_LLAMA, offset=1.0),
    "gemma2": Family(_GEMMA2, offset=1.0),
    "gemma3_text": Family(_GEMMA2, offset=1.0),
    "phi": Family((Group("input_layernorm", (*_QKV, "mlp.fc1")),)),
    "phi3": Family(
        (
            Group("input_layernorm", ("self_attn.qkv_proj",)),
            Group("post_attention_layernorm", ("mlp.gate_up_proj",)),
        )
    ),
    "starcoder2": Family((_ATTENTION, Group("post_attention_layernorm", ("mlp.c_fc",)))),
    "gpt_neox": Family(
        (
            Group("input_layernorm", ("attention.query_key_value",)),
            Group("post_attention_layernorm", ("mlp.dense_h_to_4h",)),
        ),
        head="embed_out",
    ),
    "opt": Family(
        (Group("self_attn_layer_norm", _QKV), Group("final_layer_norm", ("fc1",))),
        # Otherwise the norm stands behind the block, where the sum reads it too.
        needs=(("do_layer_norm_before", True), ("layer_norm_elementwise_affine", True)),
    ),
    "bloom": Family(
        (
            Group("input_layernorm", ("self_attention.query_key_value",)),
            Group("post_attention_layernorm", ("mlp.dense_h_to_4h",)),
        ),
        # Set, the sum takes the norm's result.
        needs=(("apply_residual_connection_post_layernorm", False),),
    ),
}


def family_of(config: Mapping[str, Any], where: Path) -> Family:
    """The family of a model by its config.json. where: what messages call that.

    Raises ModelError for a family that is not known here, for a model with layers of its own code,
    for one whose norms stand elsewhere, and for one that is quantised already.
    """
    kind = config.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise ModelError(
            f"{where}: SmoothQuant does not know the layers of model_type {kind}: expected "
            f"{', '.join(FAMILIES)}"
        )
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method")
        raise ModelError(
            f"{where}: the model is quantised already ({method}): expected plain weights for "
            "SmoothQuant; without option.quantize it is served as it is"
        )
    if "AutoModelForCausalLM" in (config.get("auto_map") or {}):
        raise ModelError(
            f"{where}: the model brings code of its own (auto_map), whose layers SmoothQuant does "
            "not know: expected one of transformers' own classes"
        )
    for name, wanted in family.needs:
        if bool(config.get(name, wanted)) is not wanted:
            raise ModelError(
                f"{where}: {name} is {config[name]!r}: SmoothQuant needs {wanted} in {kind}, or "
                "no norm stands right before the linear layers"
            )
    return family
