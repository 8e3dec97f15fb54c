"""What LMI-Dist can't run is named before weights load, with what would be right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from lmi.core import ConfigError, ModelError
from lmi.dist import attention
from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore
from tests.support.models import make_model

pytestmark = pytest.mark.slow


def start(folder: Path, **options: Any) -> EngineCore:
    """With transformers' models, whatever our own decoder could do."""
    return EngineCore(DistConfig(folder, dtype="float32", runtime="transformers", **options))


def write_config(folder: Path, config: tf.PreTrainedConfig) -> Path:
    config.save_pretrained(folder)
    return folder


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing: no config\.json"):
        start(tmp_path / "nothing")


def test_a_broken_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json can't be read"):
        start(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such_model"}))
    with pytest.raises(ModelError, match=r"config\.json can't be read.*no_such_model"):
        start(tmp_path)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (tf.T5Config(), "encoder-decoder"),
        (tf.MambaConfig(), "a state that is not K and V"),
        (tf.ViTConfig(), "vit does not generate text"),
        (tf.CLIPConfig(), "clip does not generate text"),
        (tf.WhisperConfig(), "whisper does not generate text"),
        (tf.BertConfig(), "reads in both directions"),
        (tf.GPT2Config(architectures=["GPT2ForTokenClassification"]), "a GPT2ForTokenClass"),
        (tf.XGLMConfig(), "neither transformers' attention interface nor one of"),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_an_architecture_that_cannot_run_is_refused_without_weights(
    tmp_path: Path, config: tf.PreTrainedConfig, reason: str
) -> None:
    # There is not even a weight file: the class is looked at first.
    with pytest.raises(ModelError, match=reason):
        start(write_config(tmp_path, config))


def test_pickled_weights_are_refused_with_the_way_out(tmp_path: Path) -> None:
    write_config(tmp_path, tf.LlamaConfig())
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        start(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is a pickle.*convert"):
        start(tmp_path)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    weights = make_model(tmp_path / "llama", "llama") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="model.safetensors can't be read"):
        start(weights.parent)


def test_a_checkpoint_with_a_missing_weight_is_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "llama", "llama")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.2.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights.*layers\.2\.mlp\.up_proj\.weight"):
        start(folder)


def test_attention_that_differs_from_the_models_own_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model(tmp_path / "gemma2", "gemma2")
    start(folder)
    right = attention.interface

    def without_softcap(*args: Any, softcap: float | None = None, **kwargs: Any) -> Any:
        return right(*args, **kwargs)

    monkeypatch.setattr("lmi.dist.loader.interface", without_softcap)
    with pytest.raises(ModelError, match=r"gemma2: .* logits differ from the model's own"):
        start(folder)


def test_more_context_than_the_model_has_is_refused(llama: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_model_len=.300..*at most 256"):
        start(llama, max_model_len=300)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named(llama: Path) -> None:
    with pytest.raises(ConfigError, match="device='cuda'"):
        start(llama, device="cuda")


def test_loading_tells_its_phases(llama: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    EngineCore(DistConfig(llama, runtime="transformers"), lambda *news: seen.append(news))
    assert list(dict.fromkeys(phase for phase, _, _ in seen)) == [
        "read config",
        "load weights",
        "warm up",
    ]
    for phase in {phase for phase, _, _ in seen}:
        steps = [(done, total) for name, done, total in seen if name == phase]
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1] > 0


def test_two_models_live_in_one_process(llama: Path, tmp_path: Path) -> None:
    start(llama)
    start(make_model(tmp_path / "falcon", "falcon_40b"))
    start(llama)
