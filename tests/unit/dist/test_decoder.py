"""Our own decoder against transformers' models, tensor by tensor of what can differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lmi.core import ModelError
from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore
from lmi.dist.decoder.config import DecoderConfig, read_decoder_config
from lmi.dist.decoder.rope import rope_table
from lmi.dist.messages import CoreRequest
from tests.support.models import make_model
from tests.unit.dist.conftest import Serve

IDS = tuple(range(3, 40))

ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 10000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn with scales": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "mscale": 0.7,
        "mscale_all_dim": 0.5,
        "beta_fast": 16,
        "truncate": False,
    },
}


def write(folder: Path, config: tf.PreTrainedConfig, dtype: torch.dtype = torch.float32) -> Path:
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


def small(kind: type[tf.PreTrainedConfig] = tf.LlamaConfig, **changes: Any) -> tf.PreTrainedConfig:
    shape = {
        "vocab_size": 128,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "eos_token_id": None,
        "bos_token_id": None,
    }
    return kind(**{**shape, **changes})


def prompt_logprobs(folder: Path, serve: Serve, **changes: Any) -> torch.Tensor:
    core = EngineCore(DistConfig(folder, dtype="float32", runtime="native", **changes))
    events = serve(core, [CoreRequest(1, IDS, 1, prompt_logprobs=True)])[1]
    assert events[0].detail is not None
    return torch.tensor([value for _, value in events[0].detail.prompt[1:]])


def expected_logprobs(folder: Path) -> torch.Tensor:
    model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        rows = torch.log_softmax(model(torch.tensor([IDS])).logits[0, :-1], dim=-1)
    return rows.gather(1, torch.tensor(IDS[1:])[:, None])[:, 0]


@pytest.mark.parametrize("name", ROPES)
def test_cosines_and_sines_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    config = small(rope_parameters=dict(ROPES[name]))
    config.save_pretrained(tmp_path)
    ours = read_decoder_config(tmp_path)
    assert isinstance(ours, DecoderConfig)
    kind = ROPES[name]["rope_type"]
    if kind == "default":
        frequencies, factor = 1.0 / (10000.0 ** (torch.arange(0, 16, 2).float() / 16)), 1.0
    else:
        frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    angles = torch.arange(200).float()[:, None] * frequencies
    want = torch.cat([angles.cos(), angles.sin()], dim=-1) * factor
    torch.testing.assert_close(rope_table(ours.rope, 200, torch.device("cpu")), want)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(small(tie_word_embeddings=True), id="tied"),
        pytest.param(small(attention_bias=True, mlp_bias=True), id="biases everywhere"),
        pytest.param(small(head_dim=24), id="heads wider than the hidden size"),
        pytest.param(small(rope_parameters=dict(ROPES["llama3"])), id="llama 3 rope"),
        pytest.param(small(rope_parameters=dict(ROPES["yarn"])), id="yarn"),
        pytest.param(small(num_key_value_heads=1), id="one KV head"),
        pytest.param(small(num_key_value_heads=4), id="as many KV heads as heads"),
        pytest.param(
            small(tf.Qwen2Config, use_sliding_window=True, sliding_window=9, max_window_layers=1),
            id="a window in some layers",
        ),
        pytest.param(small(tf.Qwen3Config, head_dim=16), id="norms of query and key"),
        pytest.param(small(tf.MixtralConfig, num_local_experts=4), id="experts"),
    ],
)
def test_logprobs_are_those_of_transformers(
    tmp_path: Path, serve: Serve, config: tf.PreTrainedConfig
) -> None:
    folder = write(tmp_path, config)
    found = prompt_logprobs(folder, serve, prefill_tokens=16)
    torch.testing.assert_close(found, expected_logprobs(folder), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("budget", [512, 5])
def test_prompts_side_by_side_have_the_logprobs_that_they_have_alone(
    tmp_path: Path, serve: Serve, budget: int
) -> None:
    config = DistConfig(write(tmp_path, small()), dtype="float32", prefill_tokens=budget)
    prompts = [IDS, IDS[5:9], IDS[20:22], IDS[3:30]]
    requests = [CoreRequest(i, prompt, 3, prompt_logprobs=True) for i, prompt in enumerate(prompts)]
    together = serve(EngineCore(config), requests)
    for request in requests:
        alone = serve(EngineCore(config), [request])
        assert together[request.id] == alone[request.id]


def change_weights(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    path = folder / "model.safetensors"
    tensors = {**load_file(path), **change}
    save_file({k: v for k, v in tensors.items() if v is not None}, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.layers.1.mlp.up_proj.weight": None}, "lacks the tensor model.layers.1.mlp.up"),
        ({"lm_head.weight": None}, "lacks the tensor lm_head.weight"),
        ({"model.norm.weight": torch.ones(7)}, r"model.norm.weight has the shape \(7,\)"),
        ({"model.layers.0.extra.weight": torch.ones(3)}, "among them model.layers.0.extra.weight"),
        ({"model.layers.0.self_attn.q_proj.bias": torch.ones(64)}, "have a bias"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    folder = write(tmp_path, small())
    change_weights(folder, change)
    with pytest.raises(ModelError, match=message):
        EngineCore(DistConfig(folder, runtime="native"))


def test_a_truncated_file_is_refused_by_name(tmp_path: Path) -> None:
    folder = write(tmp_path, small())
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model\.safetensors can't be read"):
        EngineCore(DistConfig(folder, runtime="native"))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, small())
    change_weights(folder, {"model.norm.weight": torch.full((64,), torch.nan)})
    with pytest.raises(ModelError, match="not finite"):
        EngineCore(DistConfig(folder, runtime="native"))


def test_a_second_checkpoint_in_the_folder_is_not_read(tmp_path: Path, serve: Serve) -> None:
    folder = write(tmp_path, small())
    save_file({"layers.0.attention.wq.weight": torch.ones(2)}, folder / "consolidated.safetensors")
    assert prompt_logprobs(folder, serve).numel() == len(IDS) - 1


def test_what_the_decoder_does_not_know_goes_to_transformers_unless_asked_otherwise(
    tmp_path: Path,
) -> None:
    folder = write(tmp_path, small())
    change_weights(folder, {"model.layers.0.extra.weight": torch.ones(3)})
    core = EngineCore(DistConfig(folder, dtype="float32"))
    assert "model.layers.0.extra.weight" in dict(core.info.details)["runtime"]


def test_auto_keeps_the_checkpoint_s_own_type_where_our_kernels_widen_it(tmp_path: Path) -> None:
    folder = write(tmp_path, small(), dtype=torch.bfloat16)
    assert dict(EngineCore(DistConfig(folder)).info.details)["dtype"] == "bfloat16"
    wide = EngineCore(DistConfig(folder, dtype="float32"))
    assert dict(wide.info.details)["dtype"] == "float32"


def test_a_family_that_is_not_ours_is_refused_where_native_is_asked_for(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "gpt2", "gpt2")
    with pytest.raises(ModelError, match="model_type gpt2 is not one of llama, mistral"):
        EngineCore(DistConfig(folder, runtime="native"))
    core = EngineCore(DistConfig(folder, dtype="float32"))
    assert "model_type gpt2 is not one of" in dict(core.info.details)["runtime"]
