"""A model's chat template: messages in, the prompt's text out, as transformers renders it.

Templates come with models, so they run in jinja's sandbox: no attribute of Python's own is in
reach, and what they can change is theirs. The sandbox bounds neither time nor memory; that is why
only who sets up the model can give a template, never a request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lmi.core import BadPayload, ModelError
from lmi.text.chat_content import Shown, content_shown
from lmi.text.chat_files import find_templates, special_tokens

ContentFormat = Literal["auto", "string", "openai"]

# What a template does to unforeseen messages, beside jinja's own errors.
_FAULTS = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_MAX_REASON = 300  # characters of a template's own message

# Behind the text that is to be continued: found again in what the template made. Its last space
# tells whether the template trims.
_MARK = "\ue000continue\ue000 "


class _Generation(Extension):
    """`{% generation %}`: marks the assistant's tokens for training, and nothing else here."""

    tags = {"generation"}  # noqa: RUF012 the base class' own type

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Named:
    """One template. shown: what a message's content looks like to it."""

    __slots__ = ("shown", "template")

    def __init__(self, template: Template, shown: Shown) -> None:
        self.template = template
        self.shown = shown


class ChatTemplate:
    """Made by `load`; never changes, may be shared by threads."""

    def __init__(
        self,
        source: str | Mapping[str, str],
        special: Mapping[str, str] | None = None,
        content_format: ContentFormat = "auto",
    ) -> None:
        """source: a template, or several by name, of which `default` is used, and `tool_use` for
        requests with tools. special: the tokens that a template may name, such as `bos_token`.

        Raises ModelError for what is no template.
        """
        sources = {"default": source} if isinstance(source, str) else source
        self._special = dict(special or {})
        self._templates = {
            name: self._compile(text, content_format) for name, text in sources.items()
        }
        if "default" not in self._templates:
            names = ", ".join(sorted(self._templates))
            raise ModelError(
                f"the model has the chat templates {names}, and none is the default: "
                "name one of the files in option.chat_template"
            )

    @classmethod
    def load(
        cls,
        folder: Path,
        override: str | None = None,
        content_format: ContentFormat = "auto",
    ) -> ChatTemplate | None:
        """The template of a model's folder; None where it has none.

        override: a file (absolute, or in the folder), or the template itself. Raises ModelError.
        """
        sources = find_templates(folder, override)
        return cls(sources, special_tokens(folder), content_format) if sources else None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """The prompt.

        A message's content is a text, or a list of parts `{"type": "text", "text": ...}`. With
        continue_final_message the prompt ends with the last message's text, so that the answer goes
        on with it. variables: what else the template may name. Raises BadPayload where the template
        refuses the messages.
        """
        named = self._templates[
            "tool_use" if tools and "tool_use" in self._templates else "default"
        ]
        given = [{**message, "content": named.shown(message["content"])} for message in messages]
        if continue_final_message:
            given[-1]["content"] = _marked(given[-1]["content"])
        try:
            text = named.template.render(
                messages=given,
                tools=tools,
                documents=documents,
                add_generation_prompt=add_generation_prompt,
                **{**self._special, **variables},
            )
        except RecursionError:
            raise BadPayload(
                "messages: the chat template recurses without end", field="messages"
            ) from None
        except _FAULTS as error:
            reason = " ".join(str(error).split())[:_MAX_REASON] or type(error).__name__
            raise BadPayload(f"messages: the chat template: {reason}", field="messages") from error
        if continue_final_message:
            text = _cut(text)
        return _checked(text)

    def _compile(self, source: str, content_format: ContentFormat) -> _Named:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            return _Named(
                environment.from_string(source),
                content_shown(environment.parse(source), content_format),
            )
        except TemplateError as error:
            raise ModelError(f"the chat template is no Jinja template: {error}") from error


def _marked(content: Any) -> Any:
    """The last message's content with the mark behind its text."""
    if isinstance(content, str):
        return content + _MARK
    for place in range(len(content) - 1, -1, -1):
        if "text" in content[place]:
            part = {**content[place], "text": content[place]["text"] + _MARK}
            return [*content[:place], part, *content[place + 1 :]]
    raise BadPayload("messages: the last message has no text to continue", field="messages")


def _cut(text: str) -> str:
    """What stands before the mark."""
    end = text.rfind(_MARK.rstrip())
    if end < 0:
        raise BadPayload(
            "messages: the chat template leaves out the last message, so it can't be continued",
            field="messages",
        )
    whole = text.startswith(_MARK, end)
    return text[:end] if whole else text[:end].rstrip()


def _checked(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadPayload(
            f"messages: no valid text: a lone surrogate at character {error.start} of the prompt",
            field="messages",
        ) from None
    return text


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
