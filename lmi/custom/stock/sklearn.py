"""The handler of scikit-learn models: skops files, and pickled ones where that is allowed.

skops rebuilds a model from a description and refuses types that were not trusted by name
(option.skops_trusted_types). The other formats are pickles: loading one runs whatever is in it.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lmi.core import ConfigError, ModelError
from lmi.custom.api.inputs import Input
from lmi.custom.api.outputs import Output
from lmi.custom.stock import options
from lmi.custom.stock.tabular import Format, TabularService

_TYPES: Final = "skops_trusted_types"


class Sklearn:
    """What scikit-learn has of its own."""

    formats: Mapping[str, Format] = {
        "skops": Format((".skops",), safe=True),
        "joblib": Format((".joblib", ".jl"), safe=False),
        "pickle": Format((".pkl", ".pickle"), safe=False),
        "cloudpickle": Format((".pkl", ".pickle", ".cloudpkl"), safe=False),
    }
    default_format = "skops"

    def load(self, file: Path, model_format: str, properties: Mapping[str, Any]) -> Any:
        """The model in a file. Raises ConfigError or ModelError."""
        if model_format == "skops":
            return _from_skops(file, options.names(properties, _TYPES))
        try:
            if model_format == "joblib":
                import joblib

                return joblib.load(file)
            with file.open("rb") as opened:  # cloudpickle writes what pickle reads
                return pickle.load(opened)
        except (pickle.UnpicklingError, EOFError, ImportError, AttributeError) as error:
            raise ModelError(f"{file}: {type(error).__name__}: {error}") from error

    def predict(self, model: Any, table: Any) -> Any:
        """Predictions for the rows of a two-dimensional array."""
        return model.predict(table)


def _from_skops(file: Path, trusted: list[str]) -> Any:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        return skops.io.load(file, trusted=trusted)
    except UntrustedTypesFoundException as error:
        missing = sorted(set(skops.io.get_untrusted_types(file=file)) - set(trusted))
        raise ConfigError(
            f"option.{_TYPES}",
            ",".join(trusted) or None,
            options.SOURCE,
            f"{file.name} also holds {', '.join(missing)}: name these types if you trust them",
        ) from error


class SklearnHandler(TabularService):
    """The service of scikit-learn models."""

    def __init__(self) -> None:
        super().__init__(Sklearn())


service = SklearnHandler()


def handle(inputs: Input) -> Output | list[Output] | None:
    """Load the model at the first call, and answer requests."""
    if not service.initialized:
        service.initialize(inputs.get_properties())
    return None if inputs.is_empty() else service.inference(inputs)
