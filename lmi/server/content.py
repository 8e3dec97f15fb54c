"""A request's content items: the query's parameters, then the body, or a form's fields.

As the reference's front hands them on: a form becomes one item per field, and has no item `data`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import FormParser, parse_options_header

from lmi.core import RequestError

# What is wrong with a client's form is told to the client, not to the log.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

Items = tuple[tuple[str | None, bytes], ...]

MAX_FIELDS = 1000  # of a form


class BadForm(RequestError):
    """The body is not the form that its content type says it is."""

    code = 400


def items(query: str, headers: Mapping[str, str], body: bytes) -> Items:
    """The items of a request. headers: by lower-case name. Raises BadForm."""
    pairs = parse_qsl(query, keep_blank_values=True) if query else []
    return (*((name, value.encode()) for name, value in pairs), *_of_body(headers, body))


def _of_body(headers: Mapping[str, str], body: bytes) -> Items:
    kind = headers.get("content-type", "")
    # `curl -d` calls everything a form: no form begins like JSON.
    if kind.startswith("application/x-www-form-urlencoded") and body.lstrip()[:1] not in b"{[":
        return _of_urlencoded(body)
    if kind.startswith("multipart/form-data"):
        return _of_multipart(kind, body)
    return (("data", body),)


def _of_urlencoded(body: bytes) -> Items:
    try:
        # Latin-1 stands for the bytes themselves, there and back.
        pairs = parse_qsl(
            body.decode("latin-1"),
            keep_blank_values=True,
            encoding="latin-1",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError as error:
        raise BadForm(f"the form can't be read: {error}") from None
    return tuple(
        [
            (name.encode("latin-1").decode(errors="replace"), value.encode("latin-1"))
            for name, value in pairs
        ]
    )


def _of_multipart(kind: str, body: bytes) -> Items:
    boundary = parse_options_header(kind)[1].get(b"boundary")
    if not boundary:
        raise BadForm(f"Content-Type {kind[:80]!r}: expected a boundary")
    found: list[tuple[str | None, bytes]] = []

    def take(part: Any, value: bytes) -> None:
        if len(found) == MAX_FIELDS:
            raise BadForm(f"the form has more than {MAX_FIELDS} fields")
        name = part.field_name
        found.append((None if name is None else name.decode(errors="replace"), value))

    def take_file(file: Any) -> None:
        file.file_object.seek(0)
        take(file, file.file_object.read())
        file.close()

    whole: list[bool] = []
    parser = FormParser(
        "multipart/form-data",
        on_field=lambda field: take(field, field.value or b""),
        on_file=take_file,
        on_end=lambda: whole.append(True),
        boundary=boundary,
        # The body is in memory already, and nothing of a client's goes to the disk.
        config={"MAX_MEMORY_FILE_SIZE": len(body) + 1, "MAX_BODY_SIZE": len(body) + 1},
    )
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise BadForm(f"the form can't be read: {error}") from None
    finally:
        parser.close()
    if not whole:
        raise BadForm("the form can't be read: its end is missing")
    return tuple(found)
