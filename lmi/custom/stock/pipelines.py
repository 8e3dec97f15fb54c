"""Tasks that are pipelines of the installed transformers: one result for each input.

A pipeline takes a text for a picture or a sound as an address or a path and would open it. Here a
client's text is the file itself, in base64: no request makes the server fetch or read anything.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable
from typing import Any, Final

from lmi.core import ConfigError
from lmi.custom.stock import options
from lmi.custom.stock.hf_options import HuggingFaceOptions
from lmi.custom.stock.loaded import Loaded

_TEXT: Final = (
    "feature-extraction",
    "fill-mask",
    "table-question-answering",
    "text-classification",
    "text-to-audio",
    "token-classification",
    "zero-shot-classification",
)
_IMAGE: Final = (
    "depth-estimation",
    "document-question-answering",
    "image-classification",
    "image-feature-extraction",
    "image-segmentation",
    "object-detection",
    "zero-shot-image-classification",
    "zero-shot-object-detection",
)
_AUDIO: Final = (
    "audio-classification",
    "automatic-speech-recognition",
    "zero-shot-audio-classification",
)
_OURS: Final = (
    "conversational",
    "question-answering",
    "summarization",
    "text-embedding",
    "text-generation",
    "text2text-generation",
    "translation",
)


def load(settings: HuggingFaceOptions, task: str) -> Loaded:
    """A pipeline for a task. Raises ConfigError for a task that has none."""
    opened = _opener(task)
    from transformers import pipeline

    found = pipeline(
        task, model=settings.model_id_or_path, device=settings.device, **settings.loading()
    )

    def predict(inputs: list[Any], **parameters: Any) -> list[Any]:
        return [plain(_one(found, task, opened(each), parameters)) for each in inputs]

    return Loaded(predict, found.model, found.tokenizer, found)


def _opener(task: str) -> Callable[[Any], Any]:
    """What makes an input of a request one of the pipeline's. Raises ConfigError."""
    if task in _TEXT:
        return lambda value: value
    if task in _IMAGE:
        return picture
    if task in _AUDIO:
        return sound
    known = ", ".join(sorted({*_TEXT, *_IMAGE, *_AUDIO, *_OURS}))
    raise ConfigError("option.task", task, options.SOURCE, f"expected one of {known}")


def _one(pipeline: Any, task: str, value: Any, parameters: dict[str, Any]) -> Any:
    """The result of one input: asked as a list, since many pipelines shape it differently else."""
    if task == "fill-mask":
        return pipeline(value, **parameters)  # a list is flattened here if it has one element
    result = pipeline([value], **parameters)
    return result[0] if isinstance(result, list) and len(result) == 1 else result


def picture(value: Any) -> Any:
    """A picture: as it is, or opened where it is bytes or text in base64 (also a `data:` address).

    A mapping's is its field `image`. Raises ValueError.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(value, dict):
        return {**value, "image": picture(value["image"])} if "image" in value else value
    if isinstance(value, Image.Image):
        return value
    try:
        return Image.open(io.BytesIO(_file(value)))
    except UnidentifiedImageError:
        raise ValueError("inputs: expected a picture's file, in base64 where it is text") from None


def sound(value: Any) -> Any:
    """A sound: a file's bytes, or text in base64; a mapping with `raw` and `sampling_rate` is
    taken as it is. Raises ValueError."""
    if isinstance(value, dict):
        if "raw" not in value or "sampling_rate" not in value:
            raise ValueError("inputs: expected a sound's file, or raw and sampling_rate")
        import numpy as np

        return {**value, "raw": np.asarray(value["raw"], dtype=np.float32)}
    return _file(value)


def _file(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if not isinstance(value, str):
        raise ValueError(f"inputs: expected a file in base64, not {type(value).__name__}")
    encoded = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise ValueError("inputs: expected a file in base64; addresses are not fetched") from None


def plain(value: Any) -> Any:
    """A result as JSON has it: tensors as lists, pictures as PNG in base64."""
    from PIL import Image

    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, Image.Image):
        out = io.BytesIO()
        value.save(out, format="PNG")
        return base64.b64encode(out.getvalue()).decode()
    return value.tolist() if hasattr(value, "tolist") else value
