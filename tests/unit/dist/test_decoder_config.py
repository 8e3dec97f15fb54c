"""config.json of the families that the decoder knows, and what it leaves to transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmi.core import ModelError
from lmi.dist.decoder.config import DecoderConfig, Unfit, read_decoder_config

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}


def read(folder: Path, **changes: Any) -> DecoderConfig | Unfit:
    values = {**LLAMA, **changes}
    (folder / "config.json").write_text(json.dumps(values))
    return read_decoder_config(folder)


def known(folder: Path, **changes: Any) -> DecoderConfig:
    found = read(folder, **changes)
    assert isinstance(found, DecoderConfig)
    return found


def test_a_silent_config_means_what_its_family_means(tmp_path: Path) -> None:
    llama = known(tmp_path)
    assert (llama.kv_heads, llama.head_size, llama.epsilon) == (4, 16, 1e-6)
    assert llama.windows == (None,) * 4
    mistral = known(tmp_path, model_type="mistral")
    assert (mistral.kv_heads, mistral.windows) == (8, (4096,) * 4)
    assert known(tmp_path, model_type="mistral", sliding_window=None).windows == (None,) * 4
    mixtral = known(tmp_path, model_type="mixtral")
    assert (mixtral.experts, mixtral.experts_per_token, mixtral.rope.theta) == (8, 2, 1e6)
    assert known(tmp_path, model_type="qwen3").query_key_norm


def test_a_window_of_qwen_is_used_only_where_it_is_switched_on(tmp_path: Path) -> None:
    shape = {"model_type": "qwen2", "sliding_window": 32, "max_window_layers": 1}
    assert known(tmp_path, **shape).windows == (None,) * 4
    switched = known(tmp_path, **shape, use_sliding_window=True)
    assert switched.windows == (None, 32, 32, 32)
    kinds = ["sliding_attention", "full_attention"] * 2
    named = known(tmp_path, **shape, use_sliding_window=True, layer_types=kinds)
    assert named.windows == (32, None, 32, None)


def test_older_and_newer_spellings_of_the_rotary_embedding_agree(tmp_path: Path) -> None:
    scaling = {"type": "linear", "factor": 2.0}
    older = known(tmp_path, rope_theta=500.0, rope_scaling=scaling)
    parameters = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}
    newer = known(tmp_path, rope_parameters=parameters)
    assert (older.rope.kind, older.rope.theta) == (newer.rope.kind, newer.rope.theta)
    assert older.rope.settings["factor"] == newer.rope.settings["factor"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"auto_map": {"AutoModel": "x.y"}}, "auto_map"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "longrope"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({"attn_logit_softcapping": 50.0}, "attention"),
    ],
)
def test_what_the_decoder_does_not_know_is_left_to_transformers(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    found = read(tmp_path, **changes)
    assert isinstance(found, Unfit)
    assert named in found.reason


def test_a_broken_config_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json there"):
        read_decoder_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json can't be read"):
        read_decoder_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="no JSON object"):
        read_decoder_config(tmp_path)
    with pytest.raises(ModelError, match="hidden_size=None"):
        read(tmp_path, hidden_size=None)
    with pytest.raises(ModelError, match="num_hidden_layers='4'"):
        read(tmp_path, num_hidden_layers="4")
    with pytest.raises(ModelError, match="model_type"):
        read(tmp_path, model_type=None)


def test_end_tokens_of_both_files_count(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    assert known(tmp_path, eos_token_id=2).eos_ids == {2, 5, 6}
