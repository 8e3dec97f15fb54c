"""Which models SmoothQuant takes, and what it says of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmi.core import ModelError
from lmi.quantize.smoothquant import FAMILIES
from lmi.quantize.smoothquant.families import family_of

WHERE = Path("model/config.json")


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_a_known_family_is_found_by_its_model_type(kind: str) -> None:
    assert family_of({"model_type": kind}, WHERE) is FAMILIES[kind]


@pytest.mark.parametrize("kind", ["gpt2", "mixtral", None, ["llama"]])
def test_another_is_refused_with_those_that_are_known(kind: object) -> None:
    with pytest.raises(ModelError, match=r"model/config\.json: .*expected llama, mistral, qwen2"):
        family_of({"model_type": kind}, WHERE)


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (
            {"model_type": "llama", "quantization_config": {"quant_method": "gptq"}},
            r"quantised already \(gptq\): expected plain weights",
        ),
        (
            {"model_type": "llama", "auto_map": {"AutoModelForCausalLM": "m.M"}},
            "code of its own",
        ),
        (
            {"model_type": "opt", "do_layer_norm_before": False},
            "do_layer_norm_before is False: SmoothQuant needs True in opt",
        ),
        (
            {"model_type": "bloom", "apply_residual_connection_post_layernorm": True},
            "post_layernorm is True: SmoothQuant needs False in bloom",
        ),
    ],
)
def test_a_model_that_cannot_be_smoothed_is_refused(config: dict[str, Any], what: str) -> None:
    with pytest.raises(ModelError, match=what):
        family_of(config, WHERE)
