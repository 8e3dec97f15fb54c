"""Among how many ranks a model can be divided, asked of its config.json before anything is loaded.

Whole heads, whole KV heads and equal parts of the MLP go to each rank. A KV head that several ranks
shared would have to be cached by each of them; LMI-Dist does not do that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from lmi.dist.config import DistConfig
from lmi.dist.cores import available_cores
from lmi.dist.decoder.config import Unfit, read_decoder_config
from lmi.dist.parallel.meeting import launched_place

MOST: Final = 8  # ranks of a job: those of one host

Parts = Mapping[str, int]
"""What is divided among the ranks, and how many there are of each."""

# What transformers' families call the width of their MLPs and of their experts.
_WIDTHS: Final = ("intermediate_size", "moe_intermediate_size", "ffn_dim", "ffn_hidden_size")


def degrees_of(parts: Parts) -> list[int]:
    """The numbers of ranks that divide every part, ascending; 1 always does."""
    return [
        degree
        for degree in range(1, MOST + 1)
        if all(count % degree == 0 for count in parts.values())
    ]


def refusal(parts: Parts, degree: int) -> str | None:
    """What is wrong with a degree, as the end of a sentence, and what would be right."""
    degrees = degrees_of(parts)
    if degree in degrees:
        return None
    uneven = [f"{count} {what}" for what, count in parts.items() if count % degree]
    why = f"a model is divided among {MOST} ranks at most"
    if uneven:
        why = f"the model's {_list(uneven, 'and')} can't be divided among {degree} ranks"
    return f"{why}; expected {_list(map(str, degrees), 'or')}"


def check(config: DistConfig) -> None:
    """Raise ConfigError where a model of our own decoder, or this machine, can't be divided so.

    Models of transformers are looked at by the ranks (`check_hosted`), before they read weights: it
    would take this process seconds to ask that library. Raises ModelError where config.json is
    broken.
    """
    if (want := wanted(config)) is not None:
        raise config.error("tensor_parallel", want)


def wanted(config: DistConfig) -> str | None:
    """What `check` raises, as the end of a sentence, or None."""
    degree = config.tensor_parallel
    if degree == 1:
        return None
    cores = available_cores()
    place = launched_place(os.environ)
    # A launcher of as many processes may have given each a core: this one sees its own only.
    if degree > cores and (place is None or place.size != degree):
        return f"each rank needs a core, and there are {cores}; expected 1 to {cores}"
    if config.runtime == "generate":
        return "the generate runtime has one rank; expected 1"
    if config.runtime == "transformers":
        return None
    found = read_decoder_config(config.model)
    if isinstance(found, Unfit):
        return None
    return refusal(
        {"heads": found.heads, "KV heads": found.kv_heads, "MLP columns": found.intermediate},
        degree,
    )


def check_hosted(config: DistConfig, model_config: Any) -> None:
    """Raise ConfigError where a model of transformers can't be divided so.

    model_config: its configuration there, an object of that library.
    """
    text = model_config.get_text_config(decoder=True)
    kind = model_config.model_type
    if not getattr(text, "base_model_tp_plan", None):
        raise config.error(
            "tensor_parallel",
            f"transformers has no plan to divide a model of type {kind}; expected 1",
        )
    heads = int(text.num_attention_heads)
    parts = {"heads": heads, "KV heads": int(getattr(text, "num_key_value_heads", None) or heads)}
    for name in _WIDTHS:
        width = getattr(text, name, None)
        if isinstance(width, int):
            parts[f"MLP columns ({name})"] = width
    if (want := refusal(parts, config.tensor_parallel)) is not None:
        raise config.error("tensor_parallel", want)


def _list(words: Iterable[str], last: str) -> str:
    """Words as a person lists them."""
    *others, final = words
    return f"{', '.join(others)} {last} {final}" if others else final
