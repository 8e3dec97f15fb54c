"""What a message's content looks like to a chat template: a text, or a list of parts.

Most templates put the content into the prompt as it is; those of models that also see images go
through its parts. Which kind a template is can be read from its loops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import nodes

Shown = Callable[[Any], Any]
"""From a content as a request has it to one as a template expects it."""


def content_shown(template: nodes.Template, content_format: str) -> Shown:
    """The conversion for a template. content_format: string, openai (parts), or auto."""
    if content_format == "string":
        return as_text
    if content_format == "openai":
        return as_parts
    if not _loops_over_content(template):
        return as_text
    # A template that asks what it got takes both; one that doesn't would take a text for parts.
    return as_it_is if _asks_for_strings(template) else as_parts


def as_it_is(content: Any) -> Any:
    return content


def as_text(content: Any) -> Any:
    """Parts become one text, a line each."""
    if isinstance(content, list):
        return "\n".join([part["text"] for part in content])
    return content


def as_parts(content: Any) -> Any:
    """A text becomes one part."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content


def _loops_over_content(template: nodes.Template) -> bool:
    names = {"content"}  # variables that hold a content
    for assignment in template.find_all(nodes.Assign):
        if isinstance(assignment.target, nodes.Name) and _is_content(assignment.node, names):
            names.add(assignment.target.name)
    return any(_is_content(loop.iter, names) for loop in template.find_all(nodes.For))


def _is_content(node: nodes.Node | None, names: set[str]) -> bool:
    """Whether an expression is a message's content, maybe filtered."""
    while isinstance(node, nodes.Filter):
        node = node.node
    if isinstance(node, nodes.Name):
        return node.name in names
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    return False


def _asks_for_strings(template: nodes.Template) -> bool:
    return any(test.name == "string" for test in template.find_all(nodes.Test))
