"""The cache around SmoothQuant: what is made once, and what asks for another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmi.core import ConfigError, ModelError
from lmi.quantize.cache import locks
from lmi.quantize.smoothquant import ensure
from lmi.quantize.smoothquant.recipe import PHASE
from tests.support.models import make_model
from tests.support.trained_tokenizers import byte_fallback

pytestmark = pytest.mark.slow

Ensure = Callable[..., Path]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = make_model(tmp_path / "model", "llama")
    byte_fallback().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
    for other in ("model.py", "requirements.txt", ".hidden.json", "weights.bin"):
        (folder / other).write_text("not the model's")
    return folder


class Ensured:
    """`ensure` on one cache; `calibrated` tells whether the last call did."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.calibrated = False

    def __call__(self, model: Path, **settings: Any) -> Path:
        self.calibrated = False
        return ensure(model, cache=self.cache, progress=self._progress, **settings)

    def _progress(self, phase: str, done: int, total: int) -> None:
        self.calibrated |= phase == PHASE


@pytest.fixture
def ensured(tmp_path: Path) -> Ensured:
    return Ensured(tmp_path / "cache")


def test_a_second_start_calibrates_nothing(model: Path, ensured: Ensured) -> None:
    made = ensured(model)
    assert ensured.calibrated
    before = {path: path.stat().st_ino for path in made.rglob("*")}
    assert ensured(model) == made
    assert not ensured.calibrated
    assert {path: path.stat().st_ino for path in made.rglob("*")} == before


def test_the_folder_is_a_model_with_all_that_belongs_to_it(model: Path, ensured: Ensured) -> None:
    made = ensured(model)
    assert sorted(path.relative_to(made).as_posix() for path in made.rglob("*")) == [
        "additional_chat_templates",
        "additional_chat_templates/tools.jinja",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "passport.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    made_of = json.loads((made / "passport.json").read_text())["made_of"]
    assert made_of["alpha"] == 0.5
    assert "model.safetensors" in made_of["model"]
    assert "model.py" not in made_of["model"]


def test_every_setting_makes_another(model: Path, ensured: Ensured, tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("A line of the user's own text.\n" * 200)
    found = {ensured(model)}
    for settings in ({"alpha": 0.25}, {"calibration": data}, {"alpha": 1}, {"alpha": 0}):
        found.add(ensured(model, **settings))
        assert ensured.calibrated
    data.write_text("Another line of the user's own text.\n" * 200)
    found.add(ensured(model, calibration=data))
    (model / "chat_template.jinja").write_text("{{ other }}")
    found.add(ensured(model))
    assert len(found) == 7


def test_a_copy_of_the_model_needs_no_second_calibration(
    model: Path, ensured: Ensured, tmp_path: Path
) -> None:
    made = ensured(model)
    shutil.copytree(model, tmp_path / "copy")
    assert ensured(tmp_path / "copy", alpha=0.5) == made
    assert not ensured.calibrated


def test_a_damaged_one_is_made_again(model: Path, ensured: Ensured) -> None:
    made = ensured(model)
    content = (made / "model.safetensors").read_bytes()
    (made / "model.safetensors").write_bytes(content[:-1])
    locks.release(ensured.cache, made.name)
    assert ensured(model) == made
    assert (made / "model.safetensors").read_bytes() == content


@pytest.mark.parametrize("alpha", [-0.1, 1.01, float("nan"), float("inf")])
def test_an_alpha_out_of_range_is_refused(model: Path, ensured: Ensured, alpha: float) -> None:
    with pytest.raises(ConfigError, match=r"smoothquant_alpha=.* expected a number from 0 to 1"):
        ensured(model, alpha=alpha)


def test_a_model_that_fails_leaves_nothing_in_the_cache(model: Path, ensured: Ensured) -> None:
    (model / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="not a tokenizer that can be read"):
        ensured(model)
    assert not [path for path in ensured.cache.iterdir() if path.name not in (".locks", ".digests")]


def test_an_unknown_family_is_refused_before_anything_is_read(
    model: Path, ensured: Ensured
) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "mamba"}))
    with pytest.raises(ModelError, match="does not know the layers of model_type mamba"):
        ensured(model)
    assert not ensured.cache.exists()
