"""Errors as the dialect shows them."""

from __future__ import annotations

import reprlib
from typing import Any, Literal, cast

import orjson
from pydantic import ValidationError

from lmi.core import BadPayload, EngineDead, EngineError, LmiError, RequestError
from lmi.schemas.config import Form

Voice = Form | Literal["v1"]
"""Whose words an error has: a form's, or OpenAI's own on its routes."""

PREFIX: dict[Voice, str] = {
    "0.36": "Input Parsing failed. Ensure that the request payload is valid. ",
    "0.25": "Input Parsing failed. Ensure that the request payload is valid. ",
    "async": "Input parsing failed: ",
    "v1": "",
}

# Fields that hold prompts: their values have no place in an error, because errors are logged.
_PROMPTS = ("inputs", "messages", "prompt", "tools", "documents")

_short = reprlib.Repr()  # a wrong value may be a list of a million texts
_short.maxstring = _short.maxother = _short.maxlong = 60  # characters
_short.maxlist = _short.maxdict = 3


def status_of(error: LmiError) -> int:
    """The HTTP status that the default dialect gives `error`."""
    if isinstance(error, RequestError | EngineError | EngineDead):
        return error.code
    return 500


def error_body(error: LmiError) -> bytes:
    """The whole body of a failed request: `{"code":424,"error":"..."}`, compact."""
    return orjson.dumps({"code": status_of(error), "error": str(error)})


def bad_payload(form: Voice, message: str, field: str | None = None) -> BadPayload:
    """A refused body: the form's prefix, then what was wrong."""
    return BadPayload(PREFIX[form] + message, field=field)


def from_validation(form: Voice, error: ValidationError, needed: str = "inputs") -> BadPayload:
    """One of pydantic's findings as one line that names the field, its value and the need.

    needed: the field that a body of this dialect can't do without.
    """
    findings = error.errors(include_url=False, include_context=True)
    # Of a union each branch complains; the one that got furthest knows best.
    finding = max(findings, key=lambda each: len(_where(each)))
    where = _where(finding)
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)[1:]
    wanted = [_want(cast("dict[str, Any]", each)) for each in findings if _where(each) == where]
    want = " or ".join(dict.fromkeys(wanted))
    if finding["type"] == "json_invalid":
        # The detail holds a position, and no text of the body.
        return bad_payload(form, f"The body is not JSON: {finding.get('ctx', {}).get('error')}.")
    if not field:
        return bad_payload(form, f"The body must be a JSON object with the field {needed!r}.")
    if finding["type"] == "missing":
        return bad_payload(form, f"The field {field!r} is missing.", field)
    if field.startswith(_PROMPTS):
        return bad_payload(form, f"{field}: expected {want}.", field)
    shown = _short.repr(finding["input"])
    return bad_payload(form, f"{field}={shown}: expected {want}.", field)


def _is_branch(part: int | str) -> bool:
    # pydantic names the branch of a union in the location: constrained-str, list[...], function-...
    return isinstance(part, str) and (
        part in _BRANCHES or "[" in part or part.startswith(("function-", "constrained-"))
    )


_BRANCHES = frozenset({"str", "int", "float", "bool", "LmiParameters", "Part", "none"})


def _where(finding: Any) -> list[int | str]:
    return [part for part in finding["loc"] if not _is_branch(part)]


_WANT: dict[str, str] = {
    "bool_type": "true or false",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_attributes_type": "an object",
    "model_type": "an object",
    "string_pattern_mismatch": "a token id, as a text of digits",
    "string_type": "a text",
    "string_unicode": "valid Unicode",
}


def _want(finding: dict[str, Any]) -> str:
    kind = finding["type"]
    context = finding.get("ctx", {})
    if kind in _WANT:
        return _WANT[kind]
    if kind == "string_too_short":
        return "a text that is not empty"
    if kind == "string_too_long":
        return f"at most {context['max_length']} characters"
    if kind == "too_short":
        return "a list that is not empty"
    if kind == "too_long":
        return f"at most {context['max_length']} entries"
    for bound, words in (
        ("ge", "at least"),
        ("gt", "more than"),
        ("le", "at most"),
        ("lt", "less than"),
    ):
        if bound in context:
            return (
                f"{words} {context[bound]:g}"
                if context[bound] < 1e6
                else f"{words} {context[bound]}"
            )
    return str(finding["msg"])
