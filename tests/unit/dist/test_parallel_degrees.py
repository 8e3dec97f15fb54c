"""Which numbers of ranks a model can have."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmi.core import ConfigError
from lmi.dist.config import DistConfig
from lmi.dist.cores import available_cores
from lmi.dist.parallel.degrees import check, check_hosted, degrees_of, refusal

LLAMA = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 96,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 12,
    "num_key_value_heads": 6,
    "max_position_embeddings": 64,
}


def config_of(folder: Path, degree: int, *, runtime: Any = "auto", **changes: Any) -> DistConfig:
    (folder / "config.json").write_text(json.dumps({**LLAMA, **changes}))
    return DistConfig(folder, tensor_parallel=degree, runtime=runtime)


def test_a_degree_divides_every_part() -> None:
    assert degrees_of({"heads": 32, "KV heads": 8, "MLP columns": 11008}) == [1, 2, 4, 8]
    assert degrees_of({"heads": 12, "KV heads": 6, "MLP columns": 48}) == [1, 2, 3, 6]
    assert degrees_of({"heads": 14, "KV heads": 2}) == [1, 2]
    assert degrees_of({"heads": 71, "KV heads": 1}) == [1]


def test_a_refusal_names_what_does_not_divide_and_what_would() -> None:
    parts = {"heads": 12, "KV heads": 6, "MLP columns": 48}
    assert refusal(parts, 3) is None
    assert refusal(parts, 4) == (
        "the model's 6 KV heads can't be divided among 4 ranks; expected 1, 2, 3 or 6"
    )
    assert "12 heads, 6 KV heads and 48 MLP columns can't be" in str(refusal(parts, 5))
    assert refusal({"heads": 16}, 16) == (
        "a model is divided among 8 ranks at most; expected 1, 2, 4 or 8"
    )
    assert str(refusal({"heads": 7}, 2)).endswith("expected 1 or 7")
    assert str(refusal({"heads": 71}, 2)).endswith("expected 1")


def test_a_model_of_our_own_decoder_is_refused_by_its_config_alone(tmp_path: Path) -> None:
    check(config_of(tmp_path, 1, num_key_value_heads=1))
    if available_cores() > 1:
        check(config_of(tmp_path, 2))
        with pytest.raises(ConfigError, match="1 KV heads can't be divided") as error:
            check(config_of(tmp_path, 2, num_key_value_heads=1))
        assert error.value.option == "tensor_parallel"
        with pytest.raises(ConfigError, match="one rank"):
            check(config_of(tmp_path, 2, runtime="generate"))


def test_each_rank_needs_a_core(tmp_path: Path) -> None:
    most = available_cores()
    with pytest.raises(ConfigError, match=f"expected 1 to {most}"):
        check(config_of(tmp_path, most + 1))


def hosted(**fields: Any) -> Any:
    config = SimpleNamespace(model_type="gemma", **fields)
    config.get_text_config = lambda decoder: config
    return config


def test_a_model_of_transformers_needs_a_plan_and_whole_parts(tmp_path: Path) -> None:
    config = config_of(tmp_path, 2)
    plan = {"base_model_tp_plan": {"layers.*.self_attn.q_proj": "colwise"}}
    check_hosted(config, hosted(**plan, num_attention_heads=4, intermediate_size=128))
    with pytest.raises(ConfigError, match="no plan to divide a model of type gemma; expected 1"):
        check_hosted(config, hosted(num_attention_heads=4, base_model_tp_plan=None))
    with pytest.raises(ConfigError, match="1 KV heads can't be divided"):
        check_hosted(config, hosted(**plan, num_attention_heads=4, num_key_value_heads=1))
    with pytest.raises(ConfigError, match="5 MLP columns"):
        check_hosted(config, hosted(**plan, num_attention_heads=4, intermediate_size=5))
