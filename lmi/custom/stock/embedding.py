"""`text-embedding`: one vector for each text.

Token vectors are pooled as the model's `1_Pooling/config.json` says (the mean where there is none)
and brought to length 1, unless option.normalize is false.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from lmi.core import ModelError
from lmi.custom.stock import generation
from lmi.custom.stock.hf_options import HuggingFaceOptions
from lmi.custom.stock.loaded import Loaded

_POOLING: Final = "1_Pooling/config.json"
_SUPPORTED: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}


def load(settings: HuggingFaceOptions) -> Loaded:
    """A model and its tokenizer as one function from texts to vectors. Raises ModelError."""
    from transformers import AutoModel

    how = pooling(Path(settings.model_id_or_path))
    model = generation.on_device(AutoModel, settings)
    tokenizer = generation.load_tokenizer(settings, padding_side="right")

    def predict(inputs: list[Any], **parameters: Any) -> list[Any]:
        normalize = bool(parameters.pop("normalize", settings.normalize))
        if parameters:
            raise ValueError(f"parameters.{next(iter(parameters))}: embeddings know normalize only")
        # One at a time: padding would change the last digits with the neighbours' lengths.
        return [_embed(model, tokenizer, each, how, normalize) for each in inputs]

    return Loaded(predict, model, tokenizer)


def pooling(folder: Path) -> str:
    """How token vectors become one: cls, mean or last. Raises ModelError for another way."""
    file = folder / _POOLING
    if not file.is_file():
        return "mean"
    asked = [name for name, on in json.loads(file.read_text()).items() if on is True]
    found = [_SUPPORTED[name] for name in asked if name in _SUPPORTED]
    if len(found) != 1 or len([name for name in asked if name.startswith("pooling_mode")]) != 1:
        raise ModelError(f"{file}: expected one of {', '.join(_SUPPORTED)} to be true")
    return found[0]


def _embed(model: Any, tokenizer: Any, text: Any, how: str, normalize: bool) -> list[float]:
    import torch

    if not isinstance(text, str):
        raise ValueError(f"inputs: expected a text, not {type(text).__name__}")
    tokens = tokenizer(text, return_tensors="pt", truncation=True).to(model.device)
    with torch.inference_mode():
        rows = model(**tokens).last_hidden_state[0].float()
    row = {"cls": rows[0], "mean": rows.mean(0), "last": rows[-1]}[how]
    if normalize:
        row = torch.nn.functional.normalize(row, dim=0)
    found: list[float] = row.tolist()
    return found
