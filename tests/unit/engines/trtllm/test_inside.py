"""What a folder is taken for, and what is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmi.core import ModelError
from lmi.engines.trtllm.engine_folder import differences, read_engine, read_json
from lmi.engines.trtllm.inside import look, shape_of
from tests.unit.engines.trtllm.folders import (
    CHECKPOINT,
    LLAMA,
    write_config,
    write_engine,
    write_triton,
)


def test_a_hugging_face_folder(tmp_path: Path) -> None:
    found = look(write_config(tmp_path, LLAMA))
    assert (found.kind, found.known, found.checkpoint) == ("hf", True, None)
    shape = found.shape
    assert (shape.architecture, shape.heads, shape.kv_heads) == ("LlamaForCausalLM", 32, 8)
    assert (shape.layers, shape.context) == (16, 8192)


def test_a_quantised_hugging_face_folder(tmp_path: Path) -> None:
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}
    found = look(write_config(tmp_path, LLAMA | {"quantization_config": gptq}))
    assert found.kind == "hf"
    assert found.checkpoint is not None


def test_a_folder_of_modelopt(tmp_path: Path) -> None:
    write_config(tmp_path, LLAMA)
    said = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(said))
    found = look(tmp_path)
    assert (found.kind, found.algorithm, found.kv_algorithm) == ("modelopt", "FP8", "FP8")


def test_a_checkpoint_of_tensorrt_llm(tmp_path: Path) -> None:
    found = look(write_config(tmp_path, CHECKPOINT))
    assert (found.kind, found.tensor, found.pipeline) == ("checkpoint", 2, 2)
    assert (found.algorithm, found.kv_algorithm) == ("W4A16_AWQ", "INT8")
    assert found.shape.kv_heads == 8


@pytest.mark.parametrize("inner", [".", "1"])
def test_an_engine_lies_in_the_folder_or_in_its_version(tmp_path: Path, inner: str) -> None:
    write_engine(tmp_path / inner)
    found = look(tmp_path)
    assert found.kind == "engine"
    assert found.engine is not None
    assert found.engine.ranks == 4
    assert found.engine.limits() == (
        "batch 8, prompt 1024, prompt and answer 2048, tokens in a step 4096"
    )
    assert (found.engine.quantisation, found.engine.kv_quantisation) == ("W4A16_AWQ", "INT8")


@pytest.mark.parametrize("named", [".", "tensorrt_llm"])
def test_a_repository_for_triton(tmp_path: Path, named: str) -> None:
    write_triton(tmp_path)
    (tmp_path / "tensorrt_llm" / "config.pbtxt").write_text(
        'parameters: { key: "gpt_model_path" value: { string_value: "${engine_dir}" } }'
    )
    found = look(tmp_path / named)
    assert found.kind == "triton"
    assert found.folder == tmp_path / "tensorrt_llm" / "1"
    assert found.engine is not None


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no model: expected config.json"),
        ({"config.json": "{"}, "expected JSON"),
        ({"config.json": "[]"}, "expected a JSON object"),
        ({"config.json": '{"builder_config": {}, "plugin_config": {}}'}, "before 0.9"),
        (
            {"config.json": '{"pretrained_config": 1, "build_config": {}}'},
            "pretrained_config is no",
        ),
        (
            {
                "config.json": '{"pretrained_config": {"mapping": {"tp_size": 0}},'
                ' "build_config": {}}'
            },
            "mapping.tp_size=0",
        ),
    ],
)
def test_what_is_no_model_is_refused_with_its_name(
    tmp_path: Path, files: dict[str, str], said: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=said) as error:
        look(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_repository_without_its_engine_names_the_file_that_is_missing(tmp_path: Path) -> None:
    write_triton(tmp_path, gpt_model_path="/nowhere")
    (tmp_path / "tensorrt_llm" / "1" / "config.json").unlink()
    with pytest.raises(ModelError, match="gpt_model_path"):
        look(tmp_path)


@pytest.mark.parametrize(
    ("version", "ranks", "installed", "said"),
    [
        ("1.2.1", 4, "1.2.1", []),
        ("1.2.0rc5", 4, "1.2.1", []),
        ("", 4, "1.2.1", []),
        ("1.1.0", 4, "1.2.1", ["built by TensorRT-LLM 1.1.0, and 1.2.1 is installed"]),
        ("1.2.1", 3, "1.2.1", ["rank3.engine missing"]),
        ("1.0.0", 0, "1.2.1", ["rank0.engine and rank1.engine", "1.0.0"]),
    ],
)
def test_an_engine_runs_under_the_releases_that_built_it(
    tmp_path: Path, version: str, ranks: int, installed: str, said: list[str]
) -> None:
    folder = write_engine(tmp_path, version=version, ranks=ranks)
    engine = read_engine(folder, read_json(folder / "config.json"))
    found = list(differences(engine, installed))
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))


@pytest.mark.parametrize(
    ("config", "heads", "kv_heads"),
    [
        ({"n_head": 71, "multi_query": True}, 71, 1),
        ({"n_head": 128, "multi_query": True, "new_decoder_architecture": True}, 128, 128),
        ({"num_attention_heads": 128, "num_kv_heads": 8}, 128, 8),
        ({"text_config": {"num_attention_heads": 16, "num_key_value_heads": 4}}, 16, 4),
        ({"num_attention_heads": True}, None, None),
    ],
)
def test_heads_of_other_families(
    config: dict[str, object], heads: int | None, kv_heads: int | None
) -> None:
    shape = shape_of(config)
    assert (shape.heads, shape.kv_heads) == (heads, kv_heads)
