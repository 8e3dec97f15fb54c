"""What the handlers of scikit-learn and XGBoost share: a table in, predictions out.

A body is CSV without header, or JSON: rows, one row, or either as `inputs`. The answer is
`{"predictions": [...]}` or lines of CSV, by the Accept header; without one, and for `*/*`, it is
what option.default_accept says. The functions of a model.py that carry a mark take the place of a
step: `@init_handler` of loading, `@input_formatter` of reading, `@prediction_handler` of
predicting, `@output_formatter` of writing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from lmi.core import ConfigError, ModelError
from lmi.custom.api.encode_decode import decode, encode_csv
from lmi.custom.api.inputs import Input
from lmi.custom.api.outputs import Output
from lmi.custom.loading import MODEL_FILE, load_module
from lmi.custom.marks import marked
from lmi.custom.stock import options
from lmi.custom.stock.files import find_model_file

_JSON: Final = "application/json"
_CSV: Final = "text/csv"
_TRUST: Final = "trust_insecure_model_files"


class Format(NamedTuple):
    """How a model is saved. safe: whether loading it runs no code from the file."""

    suffixes: tuple[str, ...]
    safe: bool


class Library(Protocol):
    """What a library has of its own."""

    formats: Mapping[str, Format]
    default_format: str

    def load(self, file: Path, model_format: str, properties: Mapping[str, Any]) -> Any:
        """The model in a file. Raises ConfigError or ModelError."""

    def predict(self, model: Any, table: Any) -> Any:
        """Predictions for the rows of a two-dimensional array."""


class TabularService:
    """One model. initialized: whether it is loaded; model: what was loaded."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self.initialized = False
        self.model: Any = None
        self._hooks: dict[str, Callable[..., Any]] = {}
        self._default_accept = _JSON

    def initialize(self, properties: Mapping[str, Any]) -> None:
        """Load the model. Raises ConfigError or ModelError."""
        folder = Path(str(properties.get("model_dir") or "."))
        if (folder / MODEL_FILE).is_file():
            self._hooks = marked(load_module(folder, MODEL_FILE))
        self._default_accept = options.text(properties, "default_accept") or _JSON
        load = self._hooks.get("init_handler")
        self.model = load(str(folder)) if load else self._load(folder, properties)
        self.initialized = True

    def inference(self, inputs: Input) -> Output | list[Output]:
        """Answer a request; a dynamic batch with a list of answers, the same as one by one."""
        if inputs.is_batch():
            return [self._safely(each) for each in inputs.get_batches()]
        return self._answer(inputs)

    def _load(self, folder: Path, properties: Mapping[str, Any]) -> Any:
        formats = self._library.formats
        name = options.one_of(
            properties, "model_format", tuple(formats), self._library.default_format
        )
        assert name is not None
        form = formats[name]
        found = find_model_file(folder, form.suffixes)
        if found is None:
            wanted = " or *".join(form.suffixes)
            raise ModelError(f"{folder}: expected a file named *{wanted}, found none")
        file = Path(found)
        if not form.safe and not options.flag(properties, _TRUST):
            safe = ", ".join(each for each, how in formats.items() if how.safe)
            raise ConfigError(
                f"option.{_TRUST}",
                options.text(properties, _TRUST),
                options.SOURCE,
                f"expected true: {file.name} can run any code when it is loaded ({safe} can't)",
            )
        return self._library.load(file, name, properties)

    def _safely(self, inputs: Input) -> Output:
        """One request of a batch: what is wrong with it harms no other."""
        try:
            return self._answer(inputs)
        except Exception as error:  # whatever a model or a user's function may raise
            return Output().error(str(error) or type(error).__name__)

    def _answer(self, inputs: Input) -> Output:
        accept = self._accept(inputs.get_property("Accept"))
        predict = self._hooks.get("prediction_handler")
        table = self._read(inputs)
        found = predict(table, self.model) if predict else self._library.predict(self.model, table)
        return self._write(found, accept)

    def _accept(self, asked: str | None) -> str:
        if not asked or "*/*" in asked:
            asked = self._default_accept
        if "output_formatter" not in self._hooks and not (_JSON in asked or _CSV in asked):
            raise ValueError(f"Accept: {asked}: expected {_JSON} or {_CSV}")
        return asked

    def _read(self, inputs: Input) -> Any:
        kind = inputs.get_property("Content-Type")
        read = self._hooks.get("input_formatter")
        if read is not None:
            return read(inputs, content_type=kind)
        found = decode(inputs, kind, require_csv_headers=False)
        return as_table(found.get("inputs", found) if isinstance(found, dict) else found)

    def _write(self, predictions: Any, accept: str) -> Output:
        write = self._hooks.get("output_formatter")
        if write is not None:
            written = write(predictions)
            return written if isinstance(written, Output) else Output().add(written)
        if _CSV in accept:
            lines = encode_csv(predictions).rstrip("\n")
            return Output().add_property("Content-Type", _CSV).add(lines)
        output = Output().add_property("Content-Type", _JSON)
        return output.add_as_json({"predictions": predictions})


def as_table(rows: Any) -> Any:
    """Rows as an array of two dimensions; one row alone is a table of one. Raises ValueError."""
    import numpy as np

    if isinstance(rows, list) and len(rows) == 1 and isinstance(rows[0], np.ndarray):
        rows = rows[0]  # the only array of an ndlist or npz
    try:
        table = np.asarray(rows)
    except ValueError:
        raise ValueError("inputs: expected rows of the same length") from None
    if table.ndim == 1 and table.size:
        table = table.reshape(1, -1)
    if table.ndim != 2:
        raise ValueError(
            f"inputs: expected rows of values or one row, not a shape of {table.shape}"
        )
    return table
