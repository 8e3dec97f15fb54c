"""What is wrong with a configuration as a whole, though each of its settings is right."""

from __future__ import annotations

from collections.abc import Iterator

from lmi.config.assemble import FORMATTERS, model_of
from lmi.config.choose import FUNCTIONS, Choice
from lmi.config.folder import Folder
from lmi.config.values import Values
from lmi.core import ConfigError


def contradictions(choice: Choice, values: Values, folder: Folder | None) -> Iterator[ConfigError]:
    """Each of them, as an error about the setting to change."""
    own_code = folder is not None and folder.model_py
    formatter = values.get("option.output_formatter")
    by_handler = choice.engine == FUNCTIONS  # which reads the option itself
    if formatter is not None and formatter.text not in FORMATTERS and not (own_code or by_handler):
        want = f"expected one of {', '.join(FORMATTERS)}; other formatters need a model.py"
        yield formatter.error(want)
    model = values.get("option.model_id")
    if model is not None and model.text.startswith("djl://"):
        want = "the DJL model zoo is not served from; expected a hub id, s3:// or a folder"
        yield model.error(want)
    if choice.engine not in ("echo", FUNCTIONS) and not _has_model(values, folder):
        want = (
            "no model: put its files (config.json, *.safetensors) into the folder, or set "
            "option.model_id in serving.properties, or set HF_MODEL_ID"
        )
        yield ConfigError("option.model_id", None, place(folder), want)


def place(folder: Folder | None) -> str:
    """Where a configuration came from as a whole, for an error that no single setting caused."""
    return "the environment" if folder is None else str(folder.path)


def _has_model(values: Values, folder: Folder | None) -> bool:
    return model_of(values, folder) is not None or (folder is not None and folder.has_model)
