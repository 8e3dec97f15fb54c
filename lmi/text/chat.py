"""A model's chat template: messages in, the prompt's text out.

Templates come with models, so they run in jinja's sandbox: no attribute of Python's own is in
reach, and what they can change is theirs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lmi.core import BadPayload, ModelError


class ChatTemplate:
    """Made by `load`; never changes, may be shared by threads."""

    def __init__(self, source: str, special: Mapping[str, str] | None = None) -> None:
        """special: the tokens that a template may name, such as `bos_token`."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._special = dict(special or {})
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ModelError(f"the chat template is no Jinja template: {error}") from error

    @classmethod
    def load(cls, folder: Path, override: str | None = None) -> ChatTemplate | None:
        """The template of a model's folder; None where it has none.

        override: a file (absolute, or in the folder), or the template itself. Raises ModelError.
        """
        config = _read(folder / "tokenizer_config.json")
        special = {
            name: text
            for name in ("bos_token", "eos_token", "unk_token", "pad_token")
            if (text := _token(config.get(name))) is not None
        }
        source = _source(folder, override, config)
        return None if source is None else cls(source, special)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **more: Any,
    ) -> str:
        """The prompt. Raises BadPayload where the template refuses the messages."""
        try:
            return self._template.render(
                messages=messages,
                tools=tools,
                add_generation_prompt=add_generation_prompt,
                **{**self._special, **more},
            )
        except (TemplateError, TypeError, KeyError, ValueError) as error:
            raise BadPayload(f"messages: the chat template: {error}", field="messages") from error


def _source(folder: Path, override: str | None, config: Mapping[str, Any]) -> str | None:
    if override is not None:
        named = folder / override
        return named.read_text() if "{" not in override and named.is_file() else override
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text()
    found = config.get("chat_template")
    if isinstance(found, list):
        found = next((each["template"] for each in found if each.get("name") == "default"), None)
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def _token(value: object) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
