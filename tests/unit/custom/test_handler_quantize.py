"""The handler of transformers and quantised weights: bitsandbytes, and what checkpoints say."""

from __future__ import annotations

import pytest

from lmi.core import ConfigError
from lmi.custom.stock.hf_options import HuggingFaceOptions

MODEL = {"model_id": "org/model"}


@pytest.mark.parametrize(
    ("options", "quantize"),
    [
        ({"quantize": "bitsandbytes8"}, "bitsandbytes8"),
        ({"quantize": "bitsandbytes"}, "bitsandbytes8"),
        ({"quantize": "BitsAndBytes4"}, "bitsandbytes4"),
        ({"load_in_8bit": "true"}, "bitsandbytes8"),
        ({"load_in_4bit": "true"}, "bitsandbytes4"),
        ({"quantize": "gptq"}, None),
        ({"quantize": "awq_marlin"}, None),
        ({"quantize": "none"}, None),
        ({}, None),
    ],
)
def test_names_mean_what_they_meant(options: dict[str, str], quantize: str | None) -> None:
    assert HuggingFaceOptions.read({**MODEL, **options}).quantize == quantize


def test_bitsandbytes_layers_go_to_the_device_as_they_are_made() -> None:
    alone = HuggingFaceOptions.read({**MODEL, "quantize": "bitsandbytes4", "device_id": "1"})
    assert alone.device_map == {"": "cuda:1"}
    assert alone.device is None
    named = HuggingFaceOptions.read({**MODEL, "quantize": "bitsandbytes4", "device_map": "auto"})
    assert named.device_map == "auto"
    assert HuggingFaceOptions.read({**MODEL, "quantize": "gptq"}).device == "cpu"


def test_another_method_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="expected bitsandbytes4 or bitsandbytes8"):
        HuggingFaceOptions.read({**MODEL, "quantize": "smoothquant"})
