"""Bodies by their content type: a request's to what a pipeline takes, a prediction's to bytes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from typing import Any, Final

from lmi.custom.api.inputs import Input
from lmi.custom.api.outputs import Output

# One of these in a CSV's first line makes it a header.
_HEADERS: Final = ("question", "context", "inputs")


def decode(
    inputs: Input,
    content_type: str | None,
    key: str | None = None,
    require_csv_headers: bool = True,
) -> Any:
    """A request's item by its content type: JSON as it is, anything else as `{"inputs": ...}`.

    CSV without headers (only where they are not required) is an array of numbers. Without content
    type the body is JSON, and empty text where there is none. Raises ValueError for a body that is
    not what the content type says.
    """
    if not content_type:
        return inputs.get_as_json(key) if inputs.get_as_bytes(key) else {"inputs": ""}
    if "application/json" in content_type:
        return inputs.get_as_json(key)
    if "text/csv" in content_type:
        return decode_csv(inputs, require_csv_headers, key)
    if "text/plain" in content_type:
        return {"inputs": [inputs.get_as_string(key)]}
    if content_type.startswith("image/"):
        return {"inputs": inputs.get_as_image(key)}
    if "tensor/npz" in content_type:
        return {"inputs": inputs.get_as_npz(key)}
    if content_type in ("tensor/ndlist", "application/x-npy"):
        return {"inputs": inputs.get_as_numpy(key)}
    if content_type == "application/x-www-form-urlencoded":
        return {"inputs": inputs.get_as_string(key)}
    return {"inputs": inputs.get_as_bytes(key)}


def decode_csv(inputs: Input, require_headers: bool = True, key: str | None = None) -> Any:
    """A CSV body: `{"inputs": its rows}` with a header, an array of numbers without one.

    A column `inputs` alone is a list of its values. Raises ValueError for a header that is missing
    or unknown, and for cells that are no numbers.
    """
    text = inputs.get_as_string(key)
    first = next(iter(text.splitlines()), "").lower()
    if any(header in first for header in _HEADERS):
        rows = list(csv.DictReader(io.StringIO(text)))
        if rows and "inputs" in rows[0]:
            return {"inputs": [row["inputs"] for row in rows]}
        return {"inputs": rows}
    if require_headers:
        raise ValueError(f"a CSV body needs a header line with one of: {', '.join(_HEADERS)}")
    return numbers(text)


def numbers(text: str) -> Any:
    """CSV without header as a two-dimensional array. Raises ValueError naming the wrong line."""
    import numpy as np

    rows: list[list[float]] = []
    for line, cells in enumerate(csv.reader(io.StringIO(text)), 1):
        if not cells:
            continue
        try:
            row = [float(cell) for cell in cells]
        except ValueError:
            raise ValueError(f"line {line} of the CSV body has a cell that is no number") from None
        if any(math.isnan(number) for number in row):
            raise ValueError(f"line {line} of the CSV body has a cell that is not a number (NaN)")
        if rows and len(row) != len(rows[0]):
            raise ValueError(
                f"line {line} of the CSV body: {len(row)} cells, expected {len(rows[0])}"
            )
        rows.append(row)
    return np.array(rows)


def encode(
    outputs: Output, prediction: Any, content_type: str | None, key: str | None = None
) -> Output:
    """Add a prediction to an answer: as JSON by default, CSV, npz, else as an ndlist."""
    if not content_type or "application/json" in content_type:
        outputs.add_as_json(prediction, key)
        kind = "application/json"
    elif "text/csv" in content_type:
        outputs.add(encode_csv(prediction), key)
        kind = "text/csv"
    elif "tensor/npz" in content_type:
        outputs.add_as_npz(prediction, key)
        kind = "tensor/npz"
    else:
        outputs.add_as_numpy(prediction, key)
        kind = "tensor/ndlist"
    return outputs.add_property("Content-Type", kind)


def encode_csv(content: Any) -> str:
    """Dictionaries as CSV with a header; rows, or a list of single values, as lines without one."""
    single = isinstance(content, dict | str) or not isinstance(content, Iterable)
    rows = [content] if single else list(content)
    out = io.StringIO()
    if rows and isinstance(rows[0], dict):
        table = csv.DictWriter(out, rows[0].keys(), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    else:
        csv.writer(out, lineterminator="\n").writerows(_cells(row) for row in rows)
    return out.getvalue()


def _cells(row: Any) -> Iterable[Any]:
    several = isinstance(row, Iterable) and not isinstance(row, str) and getattr(row, "ndim", 1) > 0
    return row if several else [row]
