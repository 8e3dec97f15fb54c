"""The handler of XGBoost models: JSON and UBJ files, and pickled ones where that is allowed."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lmi.core import ModelError
from lmi.custom.api.inputs import Input
from lmi.custom.api.outputs import Output
from lmi.custom.stock.tabular import Format, TabularService

# Options that the reference also takes from variables of these names.
_VARIABLES: Final = {
    "model_format": "MODEL_FORMAT",
    "trust_insecure_model_files": "TRUST_INSECURE_MODEL_FILES",
}


class XGBoost:
    """What XGBoost has of its own."""

    formats: Mapping[str, Format] = {
        "json": Format((".json",), safe=True),
        "ubj": Format((".ubj",), safe=True),
        "pickle": Format((".pkl", ".pickle"), safe=False),
        "xgb": Format((".xgb", ".model", ".bst"), safe=False),
    }
    default_format = "json"

    def load(self, file: Path, model_format: str, properties: Mapping[str, Any]) -> Any:
        """The model in a file. Raises ModelError."""
        import xgboost

        try:
            if model_format == "pickle":
                with file.open("rb") as opened:
                    return pickle.load(opened)
            booster = xgboost.Booster()
            booster.load_model(file)
        except xgboost.core.XGBoostError as error:
            raise ModelError(f"{file}: {str(error).splitlines()[0]}") from error
        except (pickle.UnpicklingError, EOFError, ImportError, AttributeError) as error:
            raise ModelError(f"{file}: {type(error).__name__}: {error}") from error
        return booster

    def predict(self, model: Any, table: Any) -> Any:
        """Predictions for the rows of a two-dimensional array."""
        import xgboost

        if not isinstance(model, xgboost.Booster):
            return model.predict(table)
        features = model.num_features()
        if table.shape[1] != features:
            raise ValueError(
                f"inputs: rows of {table.shape[1]} values, the model has {features} features"
            )
        # Rows that a client sends have no names: the model's are theirs.
        return model.predict(xgboost.DMatrix(table, feature_names=model.feature_names))


def with_variables(properties: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The options, and from the environment those of them that are unset."""
    found = {name: environ[key] for name, key in _VARIABLES.items() if key in environ}
    return {**found, **properties}


class XGBoostHandler(TabularService):
    """The service of XGBoost models."""

    def __init__(self) -> None:
        super().__init__(XGBoost())


service = XGBoostHandler()


def handle(inputs: Input) -> Output | list[Output] | None:
    """Load the model at the first call, and answer requests."""
    if not service.initialized:
        service.initialize(with_variables(inputs.get_properties(), os.environ))
    return None if inputs.is_empty() else service.inference(inputs)
