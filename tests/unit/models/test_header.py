"""The header of a model is read without its weights, and a file that is cut short is noticed."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmi.core import ModelError
from lmi.models import Store
from lmi.models.header import FIRST_READ_BYTES
from tests.support.model_folders import CONFIG, model_files, safetensors, write


def inspect(folder, files):
    return Store(folder / "cache").inspect(str(write(folder / "model", files)))


def test_the_figures_come_from_the_config_and_the_headers(tmp_path):
    header = inspect(tmp_path, model_files())
    assert header.architectures == ("LlamaForCausalLM",)
    assert header.model_type == "llama"
    assert header.dtype == "float16"
    assert header.parameters == 16 * 8 + 8 * 8 + 8
    assert header.weight_bytes == 2 * (16 * 8 + 8 * 8) + 4 * 8
    assert (header.hidden_size, header.layers, header.vocab_size) == (8, 2, 16)
    assert (header.heads, header.kv_heads, header.head_dim) == (4, 2, 2)
    assert header.max_positions == 64
    assert header.quantization is None


def test_other_families_names_are_understood(tmp_path):
    config = {"n_embd": 8, "n_head": 2, "n_layer": 3, "n_positions": 32, "multi_query": True}
    header = inspect(tmp_path, {"config.json": json.dumps(config).encode()})
    assert (header.hidden_size, header.layers, header.heads, header.head_dim) == (8, 3, 2, 4)
    assert (header.kv_heads, header.max_positions) == (1, 32)
    assert (header.vocab_size, header.dtype, header.parameters) == (None, None, 0)


def test_a_model_with_eyes_has_the_figures_of_its_language_model(tmp_path):
    config = {"model_type": "llava", "text_config": CONFIG, "torch_dtype": "bfloat16"}
    header = inspect(tmp_path, {"config.json": json.dumps(config).encode()})
    assert (header.model_type, header.layers, header.kv_heads) == ("llava", 2, 2)


def test_the_dtype_is_that_of_most_bytes_where_the_config_is_silent(tmp_path):
    files = {
        "config.json": b'{"quantization_config": {"quant_method": "gptq"}}',
        "model.safetensors": safetensors({"a": ("BF16", (64,)), "b": ("F32", (8,))}),
    }
    header = inspect(tmp_path, files)
    assert (header.dtype, header.quantization) == ("bfloat16", "gptq")


def test_a_header_longer_than_the_first_read_is_read_whole(tmp_path):
    tensors = {f"layer.{i}.{'x' * 200}": ("F16", (2,)) for i in range(2000)}
    content = safetensors(tensors)
    assert int.from_bytes(content[:8], "little") > FIRST_READ_BYTES
    header = inspect(tmp_path, {"config.json": b"{}", "model.safetensors": content})
    assert header.parameters == 4000


@given(data=st.data())
def test_a_file_that_is_cut_short_is_an_error_that_names_it(tmp_path_factory, data):
    whole = safetensors({"a": ("F16", (4, 4)), "b": ("F32", (3,))})
    kept = data.draw(st.integers(0, len(whole) - 1))
    folder = tmp_path_factory.mktemp("cut")
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        inspect(folder, {"config.json": b"{}", "model.safetensors": whole[:kept]})


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"[]", "not a JSON object"),
        (b"{nonsense", "is not JSON"),
        (b'{"a": {"dtype": "F16"}}', "header is corrupt"),
        (b'{"a": 3}', "header is corrupt"),
    ],
)
def test_a_corrupt_header_is_an_error_that_names_the_file(tmp_path, header, said):
    content = len(header).to_bytes(8, "little") + header
    with pytest.raises(ModelError, match=rf"model\.safetensors.*{said}"):
        inspect(tmp_path, {"config.json": b"{}", "model.safetensors": content})


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"x": b""}, "no config.json"),
        ({"config.json": b"\xff"}, "config.json is not JSON"),
        ({"config.json": b"3"}, "config.json is not a JSON object"),
    ],
)
def test_a_folder_without_a_readable_config_is_refused(tmp_path, files, said):
    with pytest.raises(ModelError, match=said):
        inspect(tmp_path, files)


def test_neither_torch_nor_the_clients_are_loaded_for_a_folder(tmp_path):
    import subprocess

    folder = write(tmp_path / "model", model_files())
    code = (
        "import sys, pathlib; from lmi.models import Store;"
        f"Store(pathlib.Path({str(tmp_path)!r})).inspect({str(folder)!r});"
        "print(sorted({'torch', 'transformers', 'boto3', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
