"""Guided generation as the dialects spell it: many fields, of which a request sets one at most.

vLLM's older names (`guided_json` ...), its newer `structured_outputs`, and OpenAI's
`response_format`. What a grammar means is the engine's business: it refuses one that it can't
follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from lmi.core import BadPayload, Grammar
from lmi.schemas.pieces import compose

MAX_GRAMMAR = 256 * 1024  # characters: compiling takes time that grows with the text
MAX_TEXT_CHOICES = 1024  # of guided_choice

Refuse = Callable[[str, str], BadPayload]
"""Makes the refusal of a message and a field, in a dialect's own words."""

_Text = Annotated[str, Field(strict=True, min_length=1, max_length=MAX_GRAMMAR)]
_Schema = dict[str, Any] | _Text
_Choices = Annotated[list[_Text], Field(min_length=1, max_length=MAX_TEXT_CHOICES)]


class StructuredOutputs(BaseModel):
    """One way to say what the text must match."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    json_schema: _Schema | None = Field(None, alias="json", description="A JSON schema.")
    regex: _Text | None = Field(None, description="A regular expression.")
    choice: _Choices | None = Field(None, description="One of these texts.")
    grammar: _Text | None = Field(None, description="A grammar in EBNF.")
    json_object: StrictBool | None = Field(None, description="Any JSON object.")
    structural_tag: _Schema | None = Field(None, description="Tags with a schema each.")


class JsonSchema(BaseModel):
    """A schema with a name."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    name: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """OpenAI's way to ask for JSON."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    type: str = Field(description="text, json_object, json_schema or structural_tag.")
    json_schema: JsonSchema | None = Field(None, description="With type json_schema.")


class GuidedFields(BaseModel):
    """The fields that both dialects have."""

    response_format: ResponseFormat | None = Field(
        None, description="text, json_object, or json_schema with a schema to follow."
    )
    structured_outputs: StructuredOutputs | None = Field(
        None, description="What the text must match: json, regex, choice, grammar or json_object."
    )
    guided_json: _Schema | None = Field(None, description="A JSON schema that the text follows.")
    guided_regex: _Text | None = Field(
        None, description="A regular expression that the text matches."
    )
    guided_choice: _Choices | None = Field(None, description="Texts, one of which is the answer.")
    guided_grammar: _Text | None = Field(None, description="A grammar in EBNF.")


def grammar_of(
    fields: GuidedFields,
    refuse: Refuse,
    path: str = "",
    more: Mapping[str, Grammar | None] = MappingProxyType({}),
) -> Grammar | None:
    """The one grammar that is asked for, or None; raises what `refuse` makes of two.

    path: what stands before a field's name in errors, such as `parameters.`. more: grammars that a
    dialect spells in its own way, by field.
    """
    found = {
        f"{path}guided_json": _json("json", fields.guided_json),
        f"{path}guided_regex": _text("regex", fields.guided_regex),
        f"{path}guided_choice": _choice(fields.guided_choice),
        f"{path}guided_grammar": _text("grammar", fields.guided_grammar),
        f"{path}response_format": _of_format(fields.response_format, refuse, path),
        **of_structured(fields.structured_outputs, f"{path}structured_outputs."),
        **more,
    }
    asked = [(name, grammar) for name, grammar in found.items() if grammar is not None]
    if len(asked) > 1:
        names = " and ".join(name for name, _ in asked)
        raise refuse(f"{names}: expected one of them.", asked[1][0])
    return asked[0][1] if asked else None


def of_structured(value: StructuredOutputs | None, path: str) -> dict[str, Grammar | None]:
    """The grammars of an object, by field. path: what stands before their names."""
    if value is None:
        return {}
    return {
        f"{path}json": _json("json", value.json_schema),
        f"{path}regex": _text("regex", value.regex),
        f"{path}choice": _choice(value.choice),
        f"{path}grammar": _text("grammar", value.grammar),
        f"{path}json_object": Grammar("json_object") if value.json_object else None,
        f"{path}structural_tag": _json("structural_tag", value.structural_tag),
    }


def _of_format(value: ResponseFormat | None, refuse: Refuse, path: str) -> Grammar | None:
    match None if value is None else value.type:
        case None | "text":
            return None
        case "json_object":
            return Grammar("json_object")
        case "json_schema":
            assert value is not None
            if value.json_schema is None:
                field = f"{path}response_format.json_schema"
                raise refuse(f"{field}: expected an object with the field 'schema'.", field)
            return _json("json", value.json_schema.schema_)
        case "structural_tag":
            assert value is not None
            return _json("structural_tag", value.model_dump(exclude_none=True))
        case _:
            field = f"{path}response_format.type"
            raise refuse(
                f"{field}: expected text, json_object, json_schema or structural_tag.", field
            )


def _json(kind: Any, value: dict[str, Any] | str | None) -> Grammar | None:
    if value is None:
        return None
    return Grammar(kind, value if isinstance(value, str) else compose(value))


def _text(kind: Any, value: str | None) -> Grammar | None:
    return None if value is None else Grammar(kind, value)


def _choice(value: list[str] | None) -> Grammar | None:
    return None if value is None else Grammar("choice", compose(value))
