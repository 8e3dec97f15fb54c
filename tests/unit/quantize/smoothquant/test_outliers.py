"""What SmoothQuant is for: outliers in the activations, which plain W8A8 answers badly.

The same function with and without them, through LMI-Dist's own W8A8 path.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lmi.quantize.calibration import texts, windows
from lmi.quantize.measure import Fidelity, compare
from lmi.quantize.smoothquant.recipe import Recipe, write_w8a8
from lmi.text import Tokenizer
from tests.support.dist_logits import DistLogits
from tests.support.models import make_model
from tests.support.outlier_models import plant_outliers
from tests.support.trained_tokenizers import byte_fallback

pytestmark = pytest.mark.slow

DEMO = Path(__file__).parents[4] / "examples" / "demo"
TIMES = 10.0  # by which SmoothQuant must cut the error of the logits, at least; 16 to 28 are seen


def quiet(phase: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def measured(model: Path, reference: DistLogits, alpha: float | None, folder: Path) -> Fidelity:
    """The 8-bit model made of `model`, beside the reference, on text that it was not made with."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (model / name).is_file():
            (folder / name).write_bytes((model / name).read_bytes())
    write_w8a8(model, folder, Recipe(alpha, texts(None)), quiet)
    served = DistLogits(folder)
    assert "W8A8" in served.details["weights"]
    held_back = [str(module.__doc__) for module in (torch.nn.Linear, torch.optim.AdamW, Path, dict)]
    return compare(served, reference, windows(Tokenizer.load(model), held_back, 6, 64))


@pytest.mark.parametrize("family", ["trained llama", "llama", "qwen2", "gpt_neox", "opt", "gemma"])
def test_the_error_of_the_logits_is_cut_tenfold(family: str, tmp_path: Path) -> None:
    source = DEMO
    if family != "trained llama":
        source = make_model(tmp_path / "plain", family)
        byte_fallback().save(str(source / "tokenizer.json"))
    reference = DistLogits(source)
    model = plant_outliers(source, tmp_path / "outliers")
    rounded = measured(model, reference, None, tmp_path / "rounded")
    smoothed = measured(model, reference, 0.5, tmp_path / "smoothed")
    assert smoothed.relative_error * TIMES < rounded.relative_error
    assert smoothed.top1 > rounded.top1
