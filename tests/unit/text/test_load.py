"""A folder's tokenizer gives the ids that transformers gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Rust
from tokenizers import pre_tokenizers

from lmi.core import ModelError
from lmi.text import Tokenizer
from tests.support.trained_tokenizers import CORPUS, KINDS, add_bos

CONFIGS: list[dict[str, Any]] = [
    {},
    {"bos_token": "<s>", "eos_token": "</s>"},
    {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True},
    {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False},
    {"bos_token": "<s>", "eos_token": "</s>", "add_eos_token": True},
    {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "add_eos_token": True},
    {"bos_token": None, "add_bos_token": True},
    {
        "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": True},
        "add_bos_token": True,
    },
    {"pad_token": "<pad>", "extra_special_tokens": ["<|im_start|>", "fox"]},
    {
        "added_tokens_decoder": {
            "1000": {
                "content": "<think>",
                "lstrip": False,
                "normalized": False,
                "rstrip": True,
                "single_word": False,
                "special": False,
            }
        }
    },
    {"model_max_length": 4, "split_special_tokens": True},
]
TEXTS = [*CORPUS[:7], "", " ", "<s>two</s> <|im_start|>fox <think> x", "<pad>\n\n<tag>"]


def save(folder: Path, tokenizer: Rust, config: dict[str, Any]) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["byte_level", "byte_fallback", "metaspace"])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: ",".join(config) or "plain")
def test_ids_are_those_of_transformers(tmp_path: Path, name: str, config: dict[str, Any]) -> None:
    from transformers import AutoTokenizer

    folder = save(tmp_path, add_bos(KINDS[name]()), config)
    ours, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.special_ids == set(theirs.all_special_ids) | {
        token_id for token_id, token in theirs.added_tokens_decoder.items() if token.special
    }
    assert ours.vocab_size == len(theirs)
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
    for text in TEXTS:
        ids = theirs.encode(text)
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
        assert [ours.token(token_id) for token_id in ids] == theirs.convert_ids_to_tokens(ids)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", [True, False])
def test_add_prefix_space_is_that_of_transformers(tmp_path: Path, prefix: bool) -> None:
    from transformers import AutoTokenizer

    tokenizer = KINDS["byte_level"]()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=not prefix)
    config = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": prefix, "bos_token": "<s>"}
    folder = save(tmp_path, tokenizer, config)
    ours, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.encode("The fox") == theirs.encode("The fox")


@pytest.mark.slow
def test_a_folder_without_tokenizer_json_is_read_by_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    described = json.loads(KINDS["byte_level"]().to_str())
    (tmp_path / "vocab.json").write_text(json.dumps(described["model"]["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in described["model"]["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    ours, theirs = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        ids = theirs.encode(text)
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.slow
def test_a_folder_without_any_tokenizer_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ModelError, match=r"expected tokenizer\.json") as caught:
        Tokenizer.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model": 3}', b"\xff\xfe"])
def test_a_broken_tokenizer_json_is_a_model_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{"])
def test_a_broken_tokenizer_config_is_a_model_error(tmp_path: Path, content: bytes) -> None:
    save(tmp_path, KINDS["byte_level"](), {})
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer_config\.json"):
        Tokenizer.load(tmp_path)


def test_truncation_and_padding_of_the_file_are_not_ours(tmp_path: Path) -> None:
    tokenizer = KINDS["byte_level"]()
    plain = tokenizer.encode(CORPUS[0]).ids
    tokenizer.enable_truncation(max_length=3)
    tokenizer.enable_padding(length=50)
    assert Tokenizer.load(save(tmp_path, tokenizer, {})).encode(CORPUS[0]) == plain


def test_loading_does_not_import_transformers_or_torch(tmp_path: Path) -> None:
    save(tmp_path, KINDS["byte_level"](), CONFIGS[2])
    program = (
        "import sys, pathlib, lmi.text;"
        "print(lmi.text.Tokenizer.load(pathlib.Path(sys.argv[1])).encode('The fox'));"
        "sys.exit(not {'transformers', 'torch'}.isdisjoint(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60)
