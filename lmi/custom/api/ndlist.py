"""Arrays of numpy as bytes: DJL's list of arrays (`tensor/ndlist`), and npz.

A list: a count (i32), then each array as

    magic "NDAR", version (i32, 3), flag (u8) and a name if it is 1, sparse format, dtype in upper
    case, shape (i32 dimensions, an i64 each; an i32 length and as many 16-bit characters of layout,
    `?` where unknown), byte order (u8 `<` or `>`), the data after its i32 length in bytes

Texts have a 16-bit length before them; all integers are big-endian and signed. Nothing here
unpickles: object arrays are refused.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np

    from lmi.custom.api.payload import Buffer

_MAGIC: Final = "NDAR"
_VERSION: Final = 3
_ZIP: Final = b"PK"  # how an npz begins
_WIDTHS: Final = (8, 16, 32, 64)
_DTYPES: Final = frozenset(
    ["bool", "complex64", "float16", "float32", "float64"]
    + [f"{kind}{width}" for kind in ("int", "uint") for width in _WIDTHS]
)
# DJL's names where they are not numpy's.
_FROM_DJL: Final = {"boolean": "bool"}
_TO_DJL: Final = {"bool": "BOOLEAN"}


def to_nd_list(arrays: Sequence[Any] | np.ndarray[Any, Any]) -> bytearray:
    """A list of arrays (or of what numpy makes arrays of) as an ndlist; an array is its rows.

    Raises ValueError for a dtype that DJL has no name for.
    """
    import numpy as np

    out = bytearray(struct.pack(">i", len(arrays)))
    for each in arrays:
        array = np.ascontiguousarray(each) if np.ndim(each) else np.asarray(each)
        name = array.dtype.name
        if name not in _DTYPES:
            raise ValueError(f"an array of {name} has no form in an ndlist: convert it first")
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("<"))
        out += _text(_MAGIC) + struct.pack(">iB", _VERSION, 0) + _text("default")
        out += _text(_TO_DJL.get(name, name.upper()))
        out += struct.pack(f">i{array.ndim}q", array.ndim, *array.shape)
        out += struct.pack(f">i{array.ndim}H", array.ndim, *[ord("?")] * array.ndim)
        out += b"<" + struct.pack(">i", array.nbytes)
        out += array.tobytes()
    return out


def from_nd_list(encoded: Buffer) -> list[np.ndarray[Any, Any]]:
    """The arrays of an ndlist, or of an npz. Raises ValueError for anything else."""
    if bytes(encoded[:2]) == _ZIP:
        return from_npz(encoded)
    reader = _Reader(encoded)
    count = reader.number("i", "count")
    if count < 0:
        raise ValueError(f"not an ndlist: it counts {count} arrays")
    return [reader.array() for _ in range(count)]


def to_npz(arrays: Sequence[Any]) -> bytes:
    """Arrays as an npz, named arr_0, arr_1 and so on."""
    import numpy as np

    out = io.BytesIO()
    np.savez(out, *arrays)
    return out.getvalue()


def from_npz(encoded: Buffer) -> list[np.ndarray[Any, Any]]:
    """The arrays of an npz, in its order. Raises ValueError for pickled ones and for no npz."""
    import zipfile

    import numpy as np

    try:
        with np.load(io.BytesIO(encoded), allow_pickle=False) as npz:
            return [npz[name] for name in npz.files]
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"not an npz: {error}") from error


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


class _Reader:
    """Reads fields off a buffer and says which one was cut or wrong."""

    def __init__(self, data: Buffer) -> None:
        self._data = memoryview(data)
        self._at = 0

    def take(self, size: int, what: str) -> memoryview:
        end = self._at + size
        if size < 0 or end > len(self._data):
            raise ValueError(f"not an ndlist: its {what} is cut or has a wrong length")
        part = self._data[self._at : end]
        self._at = end
        return part

    def number(self, form: str, what: str) -> int:
        form = ">" + form
        value: int = struct.unpack(form, self.take(struct.calcsize(form), what))[0]
        return value

    def text(self, what: str) -> str:
        return bytes(self.take(self.number("h", what), what)).decode()

    def array(self) -> np.ndarray[Any, Any]:
        import numpy as np

        if (magic := self.text("magic")) != _MAGIC:
            raise ValueError(f"not an ndlist: an array begins with {magic!r}, expected {_MAGIC!r}")
        if (version := self.number("i", "version")) != _VERSION:
            raise ValueError(f"an ndlist of version {version}: expected {_VERSION}")
        if self.number("B", "name flag"):
            self.text("name")
        if (sparse := self.text("sparse format")) != "default":
            raise ValueError(f"a sparse array ({sparse!r}): expected a dense one")
        name = self.text("dtype").lower()
        name = _FROM_DJL.get(name, name)
        if name not in _DTYPES:
            raise ValueError(f"an array of dtype {name!r}: expected one of {sorted(_DTYPES)}")
        shape = self._shape()
        order = bytes(self.take(1, "byte order")).decode("latin-1")
        if order not in "<>":
            raise ValueError(f"not an ndlist: its byte order is {order!r}, expected '<' or '>'")
        data = self.take(self.number("i", "data"), "data")
        dtype = np.dtype(name).newbyteorder("<" if order == "<" else ">")
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{len(data)} bytes of data for shape {shape} of {name}")
        return np.frombuffer(data, dtype).reshape(shape)

    def _shape(self) -> tuple[int, ...]:
        dimensions = self.number("i", "shape")
        sizes = self.take(8 * dimensions, "shape")
        shape = struct.unpack(f">{dimensions}q", sizes)
        if any(size < 0 for size in shape):
            raise ValueError(f"an array of shape {shape}: sizes can't be negative")
        self.take(2 * self.number("i", "layout"), "layout")
        return shape
