"""The trained tokenizers, made once."""

from __future__ import annotations

import pytest

from tests.support.trained_tokenizers import KINDS, Kind, add_bos


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    """All kinds by name, each with a BOS template."""
    made = {}
    for name, make in KINDS.items():
        folder = tmp_path_factory.mktemp(name)
        add_bos(make()).save(str(folder / "tokenizer.json"))
        made[name] = Kind(name, folder)
    return made
