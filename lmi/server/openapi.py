"""The OpenAPI document, from the models that parse the bodies, and a page that shows it offline."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from lmi.schemas import ChatBody, CompletionBody, LmiBody
from lmi.session import Served

_ERRORS = {
    "404": "no such model",
    "408": "the body did not arrive in time",
    "413": "the body is larger than max_request_size",
    "424": "the body is not a valid request; the text names the field",
    "429": "the queue is full; Retry-After says when to try again",
    "500": "the engine was lost",
    "503": "the model is loading, restarting or draining",
    "507": "out of memory",
}

_V1_ERRORS = {
    **{status: text for status, text in _ERRORS.items() if status != "424"},
    "400": "the body is not a valid request; error.param names the field",
}


def document(sessions: Mapping[str, Served]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server with these models."""
    _, schemas = models_json_schema(
        [(body, "validation") for body in (LmiBody, ChatBody, CompletionBody)],
        ref_template="#/components/schemas/{model}",
    )
    generate = _generate("Generate text", _ERRORS, LmiBody, ChatBody, CompletionBody)
    chat = _generate("Answer a chat", _V1_ERRORS, ChatBody)
    complete = _generate("Complete a text", _V1_ERRORS, CompletionBody)
    names = sorted(sessions)
    model = {
        "name": "model",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": names},
    }
    adapter = {"name": "adapter", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "lmi", "version": version("lmi")},
        "paths": {
            "/ping": {"get": _page("Whether the models take requests", "application/json")},
            "/invocations": {"post": generate},
            "/predictions/{model}": {"parameters": [model], "post": generate},
            "/models/{model}/invoke": {"parameters": [model], "post": generate},
            "/v1/chat/completions": {"post": chat},
            "/v1/completions": {"post": complete},
            "/v1/models": {"get": _page("The models and their adapters", "application/json")},
            "/models": {"get": _page("The models", "application/json")},
            "/models/{model}": {
                "parameters": [model],
                "get": _page("One model and its load", "application/json"),
            },
            "/models/{model}/adapters": {
                "parameters": [model],
                "get": _page("The model's adapters", "application/json"),
                "post": _call("Register an adapter", "name", "src", "preload", "pin"),
            },
            "/models/{model}/adapters/{adapter}": {
                "parameters": [model, adapter],
                "get": _page("One adapter", "application/json"),
                "delete": _call("Remove an adapter"),
            },
            "/models/{model}/adapters/{adapter}/update": {
                "parameters": [model, adapter],
                "post": _call("Load or pin an adapter anew", "preload", "pin"),
            },
            "/metrics": {"get": _page("Prometheus metrics", "text/plain")},
        },
        "components": {"schemas": schemas["$defs"]},
    }


def _page(summary: str, content_type: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": {content_type: {}}}},
    }


def _call(summary: str, *names: str) -> dict[str, Any]:
    """An operation of the adapters' API. names: of its query parameters."""
    return {
        **_page(summary, "application/json"),
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": "string"}} for name in names
        ],
    }


def _generate(summary: str, errors: dict[str, str], *bodies: type[BaseModel]) -> dict[str, Any]:
    schemas = [{"$ref": f"#/components/schemas/{body.__name__}"} for body in bodies]
    body = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    kinds = ("application/json", "application/jsonlines", "text/event-stream")
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {
            "200": {"description": "The answer", "content": {kind: {} for kind in kinds}},
            **{status: {"description": text} for status, text in errors.items()},
        },
    }


# Loads nothing from elsewhere: endpoints often have no way out.
PAGE = """<!doctype html><meta charset="utf-8"><title>lmi</title>
<style>body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}
td,th{text-align:left;vertical-align:top;padding:.2rem 1rem .2rem 0}code{font-size:.95em}</style>
<h1>lmi</h1><p>The whole document: <a href="openapi.json">openapi.json</a></p>
<h2>Paths</h2><table id="paths"></table><div id="schemas"></div>
<script>
const cell = (row, text) => { row.insertCell().textContent = text; };
fetch("openapi.json").then(reply => reply.json()).then(doc => {
  for (const [path, methods] of Object.entries(doc.paths))
    for (const [method, about] of Object.entries(methods)) if (about.summary) {
      const row = document.getElementById("paths").insertRow();
      cell(row, method.toUpperCase()); cell(row, path); cell(row, about.summary);
    }
  for (const [name, schema] of Object.entries(doc.components.schemas)) {
    const part = document.getElementById("schemas");
    part.appendChild(document.createElement("h2")).textContent = name;
    const table = part.appendChild(document.createElement("table"));
    for (const [field, about] of Object.entries(schema.properties || {})) {
      const row = table.insertRow();
      cell(row, field); cell(row, about.description || "");
    }
  }
});
</script>
"""
