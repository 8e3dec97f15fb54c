"""A request as a handler gets it."""

from __future__ import annotations

import csv
import io
import json
import re
import socket
from typing import TYPE_CHECKING, Any, Final

from lmi.custom.api import framing
from lmi.custom.api.pair_list import PairList

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

# A part of a dynamic batch; both separators are in use.
_PART: Final = re.compile(r"batch_(\d+)[._](.*)", re.DOTALL)


class Input:
    """A request: its properties (HTTP headers among them) and its content.

    function_name: the handler that is asked for. properties: texts. content: the items in order,
    values are bytearrays; the body of a request is the item `data`.
    """

    def __init__(self) -> None:
        self.function_name: str | None = None
        self.properties: dict[str, Any] = {}
        self.content = PairList()

    def __str__(self) -> str:
        lines = [f"properties: {self.properties}"]
        lines += [f"{key}: {self.get_data(key)}" for key in self.content.get_keys()]
        return "\n".join(lines)

    def is_batch(self) -> bool:
        """Whether this stands for several requests (a dynamic batch)."""
        return "batch_size" in self.properties

    def get_batch_size(self) -> int:
        """How many requests this stands for."""
        return int(self.properties.get("batch_size", 1))

    def get_batches(self) -> list[Input]:
        """The requests of a dynamic batch, in order; `[self]` where it is none.

        Raises ValueError for a part that belongs to none of them.
        """
        if not self.is_batch():
            return [self]
        parts = [Input() for _ in range(self.get_batch_size())]
        for key, value in self.properties.items():
            if key.startswith("batch_") and key != "batch_size":
                part, name = _owner(parts, key)
                part.properties[name] = value
        for item, value in zip(self.content.keys, self.content.values, strict=True):
            part, name = _owner(parts, item or "")
            part.content.add(name, value)
        return parts

    def get_function_name(self) -> str | None:
        """The handler that is asked for."""
        return self.function_name

    def get_properties(self) -> dict[str, Any]:
        """All properties, by the names as they came."""
        return self.properties

    def get_property(self, key: str) -> Any:
        """A property whose name is this, whatever the case; None where there is none."""
        if key in self.properties:
            return self.properties[key]
        wanted = key.lower()
        for name, value in self.properties.items():
            if name.lower() == wanted:
                return value
        return None

    def get_content(self) -> PairList:
        """All items."""
        return self.content

    def contains_key(self, key: str) -> bool:
        """Whether the content has an item of this name."""
        return self.content.get(key) is not None

    def is_empty(self) -> bool:
        """Whether there is no content: so it is in the call that initialises a handler."""
        return self.content.is_empty()

    def get_data(self, key: str | None = None) -> Any:
        """An item, read as the content type says: arrays, JSON, text, an image, else bytes.

        None where there is no content.
        """
        if self.content.is_empty():
            return None
        kind = str(self.get_property("content-type") or "")
        if kind == "tensor/ndlist":
            return self.get_as_numpy(key)
        if kind == "tensor/npz":
            return self.get_as_npz(key)
        if kind.startswith("application/json"):
            return self.get_as_json(key)
        if kind.startswith("text/"):
            return self.get_as_string(key)
        if kind.startswith("image/"):
            return self.get_as_image(key)
        return self.get_as_bytes(key)

    def get_as_bytes(self, key: str | None = None) -> bytearray | None:
        """An item's bytes: of this name (else KeyError), or `data`, or the first.

        None where there is no content.
        """
        if self.content.is_empty():
            return None
        value: bytearray | None = self.content.get(key or "data")
        if value is None:
            if key:
                raise KeyError(f"the request has no item {key!r}, only {self.content.get_keys()}")
            value = self.content.value_at(0)
        return value

    def get_as_string(self, key: str | None = None) -> str:
        """An item as UTF-8 text. Raises ValueError where it isn't, or where there is none."""
        return self._bytes(key).decode()

    def get_as_json(self, key: str | None = None) -> Any:
        """An item as JSON. Raises ValueError where it isn't, or where there is none."""
        return json.loads(self._bytes(key))

    def get_as_image(self, key: str | None = None) -> Image:
        """An item as an image of Pillow."""
        from PIL import Image

        return Image.open(io.BytesIO(self._bytes(key)))

    def get_as_numpy(self, key: str | None = None) -> list[np.ndarray[Any, Any]]:
        """An item as a list of arrays (`tensor/ndlist`, or npz)."""
        from lmi.custom.api.ndlist import from_nd_list

        return from_nd_list(self._bytes(key))

    def get_as_npz(self, key: str | None = None) -> list[np.ndarray[Any, Any]]:
        """An item as the list of an npz' arrays."""
        from lmi.custom.api.ndlist import from_npz

        return from_npz(self._bytes(key))

    def get_as_csv(self, key: str | None = None) -> list[dict[str, Any]]:
        """An item as CSV with a header: one dictionary a line."""
        return list(csv.DictReader(io.StringIO(self.get_as_string(key))))

    def read(self, conn: socket.socket) -> None:
        """Read one request from a socket into this."""
        for _ in range(framing.read_short(conn)):
            name = framing.read_text(conn)
            self.properties[name or ""] = framing.read_text(conn)
        for _ in range(framing.read_short(conn)):
            key = framing.read_text(conn)
            self.content.add(key, framing.read_exactly(conn, framing.read_int(conn)))
        self.function_name = self.properties.get("handler")

    def _bytes(self, key: str | None) -> bytearray:
        value = self.get_as_bytes(key)
        if value is None:
            raise ValueError("the request has no content")
        return value


def _owner(parts: list[Input], key: str) -> tuple[Input, str]:
    """The request that a key of a batch belongs to, and its name there."""
    match = _PART.fullmatch(key)
    if match is None or int(match[1]) >= len(parts):
        raise ValueError(
            f"{key!r} in a batch of {len(parts)}: expected batch_000.<name> "
            f"to batch_{len(parts) - 1:03}.<name>"
        )
    return parts[int(match[1])], match[2]
