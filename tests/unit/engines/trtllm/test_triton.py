"""Repositories for Triton, said as our options: nothing in them is dropped without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmi.core import ModelError
from lmi.engines.trtllm.triton import Repository, find, read
from tests.unit.engines.trtllm.folders import parameter, write_config, write_engine, write_triton


def repository(root: Path, **parameters: str) -> Repository:
    write_triton(root, **parameters)
    model = find(root)
    assert model == root / "tensorrt_llm"
    return read(root, model)


def test_parameters_are_options(tmp_path: Path) -> None:
    found = repository(
        tmp_path,
        max_beam_width="2",
        max_tokens_in_paged_kv_cache="2560",
        kv_cache_free_gpu_mem_fraction="0.85",
        enable_chunked_context="true",
        batch_scheduler_policy="max_utilization",
        gpt_model_type="inflight_fused_batching",
        max_attention_window_size="1024,2048",
    )
    assert found.options["max_beam_width"] == 2
    assert found.options["max_tokens"] == 2560
    assert found.options["kv_cache_free_gpu_mem_fraction"] == 0.85
    assert found.options["enable_chunked_prefill"] is True
    assert str(found.options["batch_scheduler_policy"]).lower() == "max_utilization"
    assert found.options["batching_type"] == "INFLIGHT"
    assert found.options["max_attention_window"] == [1024, 2048]
    assert found.options["tokenizer"] == "/models/llama"
    assert (found.refused, found.notes) == ((), ())


def test_what_is_left_unfilled_is_unset_and_named(tmp_path: Path) -> None:
    found = repository(tmp_path, tokenizer="${tokenizer_dir}", max_beam_width="${max_beam_width}")
    assert dict(found.options) == {}
    assert any("max_beam_width" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("gpt_model_type", "v7", "expected one of inflight_fused_batching"),
        ("gpu_weights_percent", "0.5", "expected 1.0"),
        ("medusa_choices", "{0}", "Medusa"),
        ("encoder_model_path", "/encoder", "encoder"),
        ("decoding_mode", "medusa", "the engine's build"),
        ("max_beam_width", "two", "max_beam_width='two'"),
    ],
)
def test_what_cannot_be_had_is_refused(tmp_path: Path, name: str, value: str, said: str) -> None:
    found = repository(tmp_path, **{name: value})
    (line,) = found.refused
    assert name in line
    assert said in line


@pytest.mark.parametrize("name", ["executor_worker_path", "no_such_parameter", "gpu_device_ids"])
def test_what_nothing_reads_is_noted(tmp_path: Path, name: str) -> None:
    (note,) = repository(tmp_path, **{name: "1"}).notes
    assert note.startswith(name)


def test_adapters_and_lookahead_are_arguments(tmp_path: Path) -> None:
    found = repository(
        tmp_path, lora_cache_optimal_adapter_size="8", lookahead_window_size="4"
    ).arguments
    assert found["peft_cache_config"] == {"optimal_adapter_size": 8}
    assert found["speculative_config"] == {"decoding_type": "Lookahead", "max_window_size": 4}


def test_the_engine_is_where_it_is_named_else_in_the_newest_version(tmp_path: Path) -> None:
    elsewhere = write_engine(tmp_path / "elsewhere")
    assert repository(tmp_path / "a", gpt_model_path=str(elsewhere)).engine == elsewhere
    (tmp_path / "b" / "tensorrt_llm" / "10").mkdir(parents=True)
    (tmp_path / "b" / "tensorrt_llm" / "9").mkdir()
    assert repository(tmp_path / "b").engine == tmp_path / "b" / "tensorrt_llm" / "10"


def test_model_yaml_gives_arguments(tmp_path: Path) -> None:
    version = tmp_path / "tensorrt_llm" / "1"
    version.mkdir(parents=True)
    (tmp_path / "tensorrt_llm" / "config.pbtxt").write_text('name: "tensorrt_llm"')
    (version / "model.yaml").write_text(
        "model: org/model\ntensor_parallel_size: 2\ntriton_config: {a: 1}\n"
        "logits_post_processors: [x]\n"
    )
    model = find(tmp_path)
    assert model is not None
    found = read(tmp_path, model)
    assert (found.model, found.engine) == ("org/model", None)
    assert dict(found.arguments) == {"tensor_parallel_size": 2}
    assert len(found.refused) == 1
    assert len(found.notes) == 1


@pytest.mark.parametrize("text", ["model: [", "- a", "tensor_parallel_size: 2", "!!python/none x"])
def test_a_model_yaml_that_names_no_model_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "config.pbtxt").write_text("")
    (tmp_path / "1" / "model.yaml").write_text(text)
    with pytest.raises(ModelError, match=r"model\.yaml"):
        read(tmp_path, tmp_path)


def test_a_broken_config_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "config.pbtxt").write_text(parameter("gpt_model_path", "/x") + "parameters {")
    with pytest.raises(ModelError, match=r"config\.pbtxt: line 2"):
        read(tmp_path, tmp_path)


def test_a_plain_folder_is_no_repository(tmp_path: Path) -> None:
    assert find(write_config(tmp_path / "model", {})) is None
    assert find(tmp_path / "nowhere") is None
