"""A user's module behind the calls that tools and tests of scripts know."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from lmi.custom.api.inputs import Input
from lmi.custom.loading import load_module

_MODEL_FILE: Final = "model.py"


class ModelService:
    """A module whose functions answer requests. model_dir is told to each of them."""

    def __init__(self, model: ModuleType, model_dir: str | None) -> None:
        self.model = model
        self.model_dir = model_dir

    def invoke_handler(self, function_name: str, inputs: Input) -> Any:
        """Call a function of the module. Raises AttributeError where it has none of this name."""
        if self.model_dir is not None:
            inputs.properties["model_dir"] = self.model_dir
        return getattr(self.model, function_name)(inputs)

    async def invoke_handler_async(self, function_name: str, inputs: Input) -> Any:
        """Call a function of the module, and wait for it where it is `async`."""
        result = self.invoke_handler(function_name, inputs)
        return await result if inspect.isawaitable(result) else result


def load_model_service(
    model_dir: str, entry_point: str, device_id: str | int | None, namespace: str | None = None
) -> ModelService:
    """Load a module: a file of the model's folder (`x.py`), or one that is importable.

    Each is executed once in a process. device_id is not looked at: requests carry it. Raises
    ConfigError and ModelError.
    """
    module = load_module(Path(model_dir), entry_point, namespace)
    return ModelService(module, os.path.abspath(model_dir))


def has_function_in_module(module: ModuleType, function_name: str) -> bool:
    """Whether a module has something of this name that can be called."""
    return callable(getattr(module, function_name, None))


def get_annotated_function(
    model_dir: str, annotation: str, namespace: str | None = None
) -> Callable[..., Any] | None:
    """The first function of the folder's model.py that carries a mark, such as
    `is_output_formatter`; None where there is none. Raises ModelError for a model.py that fails."""
    if not Path(model_dir, _MODEL_FILE).is_file():
        return None
    module = load_module(Path(model_dir), _MODEL_FILE, namespace)
    for value in vars(module).values():
        if callable(value) and getattr(value, annotation, False) is True:
            found: Callable[..., Any] = value
            return found
    return None
