"""The quantised checkpoint of a model, from the cache or made now.

Nothing here imports torch before something must be made: a second start costs milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lmi.core import ConfigError
from lmi.dist.decoder.config import read_json
from lmi.quantize.cache import Cache, fingerprint
from lmi.quantize.calibration import texts
from lmi.quantize.smoothquant.families import family_of

KIND: Final = "smoothquant"
ALPHA: Final = 0.5  # the paper's for most models
VERSION: Final = 1
"""Of everything here that decides what is written; whoever changes that counts it up."""

_WEIGHTS: Final = ".safetensors"
_INDEX: Final = "model.safetensors.index.json"
# What belongs to a model beside its weights: tokenizer, templates, generation's defaults, code.
_CARRIED: Final = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".py")
_TEMPLATES: Final = "additional_chat_templates"
# The server's own, read from the model's folder and not from what is made of it.
_NOT_CARRIED: Final = ("config.json", _INDEX, "model.py", "requirements.txt")
_SHARE: Final = 0.75  # of the weights' bytes, that the result has at most, but for tiny models

Progress = Callable[[str, int, int], None]


def ensure(
    model: Path,
    *,
    alpha: float = ALPHA,
    calibration: Path | None = None,
    cache: Path,
    trust_remote_code: bool = False,
    progress: Progress,
) -> Path:
    """The folder of a W8A8 checkpoint (compressed-tensors, int-quantized) made of `model`.

    alpha: the share of the range that moves from the activations to the weights, 0 to 1.
    calibration: a file as in `lmi.quantize.calibration.texts`, None: our own texts. cache: where
    the result is kept; it is made again only if the model, a setting or our version is another.
    trust_remote_code: run a tokenizer's code from the model's folder. Raises ConfigError for alpha,
    ModelError for a model, data or a disk that can't be used.
    """
    if not 0.0 <= alpha <= 1.0:  # false for a NaN too
        raise ConfigError(
            "smoothquant_alpha", str(alpha), "SmoothQuant", "expected a number from 0 to 1"
        )
    family_of(read_json(model / "config.json"), model / "config.json")
    data = texts(calibration)
    carried = _carried(model)
    weights = [path.name for path in model.glob(f"*{_WEIGHTS}")]
    further = [name for name in ("config.json", _INDEX) if (model / name).is_file()]
    made_of = {
        "method": KIND,
        "version": VERSION,
        "alpha": float(alpha),
        "calibration": hashlib.sha256(json.dumps(data).encode()).hexdigest(),
        "model": fingerprint(model, [*carried, *weights, *further], cache, progress),
    }

    def make(folder: Path) -> None:
        progress("importing transformers", 0, 0)
        from lmi.quantize.smoothquant.recipe import Recipe, write_w8a8

        write_w8a8(model, folder, Recipe(float(alpha), data, trust_remote_code), progress)
        for name in carried:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(model / name, folder / name)

    return Cache(cache).folder(
        KIND,
        made_of,
        make,
        notes={"model": str(model), "calibration": str(calibration or "our own texts")},
        need_bytes=int(_SHARE * sum((model / name).stat().st_size for name in weights)),
        progress=progress,
    )


def _carried(model: Path) -> list[str]:
    """The files that the result has from the model as they are, by name."""
    found = [
        path.name
        for path in model.iterdir()
        if path.suffix in _CARRIED
        and path.is_file()
        and not path.name.startswith(".")
        and path.name not in _NOT_CARRIED
    ]
    found += [f"{_TEMPLATES}/{path.name}" for path in (model / _TEMPLATES).glob("*.jinja")]
    return sorted(found)
