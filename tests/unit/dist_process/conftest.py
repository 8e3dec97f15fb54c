"""A folder with a trained tokenizer, and engines over the scripted core."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmi.dist import DistConfig, Engine
from lmi.text import Tokenizer
from tests.support.scripted_core import ScriptedCore
from tests.support.trained_tokenizers import add_bos, byte_level


@pytest.fixture(scope="session")
def tokenizer_json() -> str:
    """A byte-level tokenizer's file."""
    return add_bos(byte_level()).to_str()


@pytest.fixture
def folder(tmp_path: Path, tokenizer_json: str) -> Path:
    """What the engines take for a model."""
    (tmp_path / "tokenizer.json").write_text(tokenizer_json)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": "</s>"})
    )
    return tmp_path


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture
def core(folder: Path) -> ScriptedCore:
    return ScriptedCore(DistConfig(folder))


@pytest.fixture
def engine(core: ScriptedCore, tokenizer: Tokenizer) -> Engine:
    return Engine(core, tokenizer)
