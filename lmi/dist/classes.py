"""Which transformers class generates with a model: known from its configuration, before any weight
is read. What no class of text generation can run is named."""

from __future__ import annotations

import re
from typing import Any, Final

from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from lmi.core import ModelError
from lmi.dist.config import DistConfig

_AUTO: Final = {
    "AutoModelForCausalLM": AutoModelForCausalLM,
    "AutoModelForSeq2SeqLM": AutoModelForSeq2SeqLM,
}

# Heads of an architecture's name that choose tokens; any other `For…` is a head of another task.
_OTHER_HEAD: Final = re.compile(r"For(?!CausalLM|ConditionalGeneration|TextToText|Generation)[A-Z]")


def generating_class(model_config: Any, config: DistConfig) -> Any:
    """The auto class that makes the model. Raises ModelError where it does not generate text."""
    kind = model_config.model_type
    auto_map = getattr(model_config, "auto_map", None) or {}
    if config.trust_remote_code:
        for name, auto in _AUTO.items():
            if name in auto_map:
                return auto
    for name in getattr(model_config, "architectures", None) or ():
        if _OTHER_HEAD.search(name):
            raise _error(config, kind, f"the checkpoint is a {name}")
    name = "AutoModelForSeq2SeqLM" if model_config.is_encoder_decoder else "AutoModelForCausalLM"
    auto = _AUTO[name]
    if type(model_config) not in auto._model_mapping:
        raise _error(config, kind, f"transformers has no {name} for it")
    if _reads_both_ways(model_config):
        raise _error(config, kind, "it reads in both directions (is_decoder is false)")
    return auto


def _reads_both_ways(model_config: Any) -> bool:
    """Whether it is an encoder that could be a decoder, but is not configured as one."""
    return (
        not model_config.is_encoder_decoder
        and type(model_config) in AutoModelForMaskedLM._model_mapping
        and getattr(model_config, "is_decoder", None) is False
    )


def _error(config: DistConfig, kind: str, why: str) -> ModelError:
    return ModelError(
        f"{config.model}: {kind} does not generate text: {why}; LMI-Dist runs causal language "
        "models and text-to-text models"
    )
