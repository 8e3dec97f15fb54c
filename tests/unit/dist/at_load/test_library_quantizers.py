"""bitsandbytes and torchao in the runtime that has transformers' layers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from lmi.core import ConfigError, ModelError
from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore
from lmi.dist.libraries import LIBRARIES, library_arguments, prepare_library
from lmi.dist.messages import CoreRequest
from tests.unit.dist.conftest import Serve

IDS = tuple(range(3, 40))


def core_of(folder: Path, **options: Any) -> EngineCore:
    return EngineCore(DistConfig(folder, dtype="float32", max_model_len=64, **options))


def answer(core: EngineCore, serve: Serve) -> list[int]:
    events = serve(core, [CoreRequest(id=1, prompt=IDS, max_new_tokens=8)])[1]
    return [event.token for event in events if event.token is not None]


def of_transformers(folder: Path, settings: Any) -> list[int]:
    """What transformers alone answers with these layers."""
    model = tf.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=settings
    )
    ids = torch.tensor([IDS])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=0
    )
    found: list[int] = out[0, len(IDS) :].tolist()
    return found


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_s_layers_answer_as_in_transformers_and_the_log_says_why(
    llama: Path, serve: Serve, name: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = DistConfig(llama, dtype="float32", quantize=name)
    settings = library_arguments(config, torch.float32, divided=False)["quantization_config"]
    core = core_of(llama, quantize=name)
    found = dict(core.info.details)
    assert LIBRARIES[name] in found["runtime"]
    assert "transformers" in found["runtime"]
    assert answer(core, serve) == of_transformers(llama, settings)
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes")]


def test_a_checkpoint_that_bitsandbytes_made_is_served(
    llama: Path, serve: Serve, tmp_path: Path
) -> None:
    settings = tf.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = tf.AutoModelForCausalLM.from_pretrained(
        llama, dtype=torch.float32, quantization_config=settings
    )
    model.save_pretrained(tmp_path / "nf4")
    core = core_of(tmp_path / "nf4")
    assert "bitsandbytes" in dict(core.info.details)["runtime"]
    assert answer(core, serve) == of_transformers(llama, settings)
    with pytest.raises(ConfigError, match=r"quantize='int8'.*quantised already \(bitsandbytes"):
        core_of(tmp_path / "nf4", quantize="int8")


def test_a_library_s_layers_are_not_our_decoder_s_nor_divided(llama: Path) -> None:
    with pytest.raises(ModelError, match=r"quantize=torchao_int8 is torchao's"):
        core_of(llama, quantize="torchao_int8", runtime="native")
    config = DistConfig(llama, quantize="bitsandbytes4", tensor_parallel=2)
    with pytest.raises(ConfigError, match=r"tensor_parallel='2'.*layers of bitsandbytes"):
        library_arguments(config, torch.float32, divided=True)
    with pytest.raises(ModelError, match=r"here: layers of bitsandbytes can't be divided"):
        prepare_library("bitsandbytes", "here", divided=True)


def test_what_a_library_would_fetch_from_a_hub_is_out_of_its_reach() -> None:
    # In a process of its own: the library's operators can be registered once only.
    code = """
import importlib.abc, sys, types
sys.modules["kernels"] = fetches = types.ModuleType("kernels")
seen = []
class Look(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.startswith("bitsandbytes"):
            seen.append(sys.modules["kernels"])
sys.meta_path.insert(0, Look())
from lmi.dist.libraries.by_bitsandbytes import prepare
prepare()
assert seen and not any(seen), seen
assert sys.modules["kernels"] is fetches
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)
