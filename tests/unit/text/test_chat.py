"""Chat templates: where they are found, what they see, what they may not do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmi.core import BadPayload, ModelError
from lmi.text import ChatTemplate

USER = {"role": "user", "content": "hi"}
PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
PARTS = (
    "{% for m in messages %}{% for part in m['content'] %}({{ part.type }}:{{ part.text }})"
    "{% endfor %}{% endfor %}"
)


def folder_with(folder: Path, **files: object) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_json", ".json").replace(
            "_jinja", ".jinja"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return folder


def loaded(folder: Path, override: str | None = None) -> ChatTemplate:
    found = ChatTemplate.load(folder, override)
    assert found is not None
    return found


def test_a_folder_without_a_template_has_none(tmp_path: Path) -> None:
    assert ChatTemplate.load(tmp_path) is None
    folder_with(tmp_path, tokenizer_config_json={"bos_token": "<s>"})
    assert ChatTemplate.load(tmp_path) is None


def test_the_file_of_its_own_wins_over_the_tokenizers_configuration(tmp_path: Path) -> None:
    folder_with(tmp_path, chat_template_json={"chat_template": "processor"})
    assert loaded(tmp_path).render([USER]) == "processor"
    folder_with(tmp_path, tokenizer_config_json={"chat_template": "config"})
    assert loaded(tmp_path).render([USER]) == "config"
    folder_with(tmp_path, chat_template_jinja="file")
    assert loaded(tmp_path).render([USER]) == "file"
    assert loaded(tmp_path, "{{ 'given' }}").render([USER]) == "given"
    (tmp_path / "mine.txt").write_text("mine")
    assert loaded(tmp_path, "mine.txt").render([USER]) == "mine"
    assert loaded(tmp_path, str(tmp_path / "mine.txt")).render([USER]) == "mine"


@pytest.mark.parametrize("as_files", [True, False])
def test_a_template_for_tools_is_used_when_there_are_tools(tmp_path: Path, as_files: bool) -> None:
    named = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "{{ tools | length }} tools"},
    ]
    if as_files:
        extra = {"additional_chat_templates__tool_use_jinja": named[1]["template"]}
        folder_with(tmp_path, chat_template_jinja="plain", **extra)
    else:
        folder_with(tmp_path, tokenizer_config_json={"chat_template": named})
    chat = loaded(tmp_path)
    assert chat.render([USER]) == "plain"
    assert chat.render([USER], tools=[{}, {}]) == "2 tools"


@pytest.mark.parametrize(
    ("files", "override", "said"),
    [
        ({"chat_template_jinja": "{% for %}"}, None, "no Jinja template"),
        ({"tokenizer_config_json": {"chat_template": 3}}, None, "expected a text, or a list"),
        ({"tokenizer_config_json": {"chat_template": [{"name": "x"}]}}, None, "name and template"),
        (
            {"tokenizer_config_json": {"chat_template": [{"name": "rag", "template": "x"}]}},
            None,
            "none is the default",
        ),
        ({"tokenizer_config_json": "{"}, None, "not JSON"),
        ({}, "missing.jinja", "no such file"),
    ],
)
def test_what_is_no_template_is_an_error_of_the_model(
    tmp_path: Path, files: dict[str, Any], override: str | None, said: str
) -> None:
    folder_with(tmp_path, **files)
    with pytest.raises(ModelError, match=said):
        ChatTemplate.load(tmp_path, override)


def test_special_tokens_have_their_names(tmp_path: Path) -> None:
    folder_with(
        tmp_path,
        tokenizer_config_json={"bos_token": {"content": "<s>"}, "eos_token": "</s>"},
        special_tokens_map_json={"eos_token": "no", "sep_token": "<sep>"},
        chat_template_jinja="{{ bos_token }}{{ eos_token }}{{ sep_token }}{{ pad_token }}",
    )
    assert loaded(tmp_path).render([USER]) == "<s></s><sep>"
    assert loaded(tmp_path).render([USER], variables={"pad_token": "P"}) == "<s></s><sep>P"


@pytest.mark.parametrize(
    ("source", "format_", "content", "seen"),
    [
        (PLAIN, "auto", "hi", "[user]hi"),
        (
            PLAIN,
            "auto",
            [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "[user]a\nb",
        ),
        (PARTS, "auto", "hi", "(text:hi)"),
        (PARTS, "auto", [{"type": "text", "text": "a"}], "(text:a)"),
        (PARTS.replace("m['content']", "m.content | list"), "auto", "hi", "(text:hi)"),
        (PLAIN, "openai", "hi", "[user][{'type': 'text', 'text': 'hi'}]"),
        (PARTS, "string", [{"type": "text", "text": "a"}], "(:)"),
        (
            "{% set content = messages[0].content %}{% if content is string %}T{{ content }}"
            "{% else %}{% for part in content %}P{{ part.text }}{% endfor %}{% endif %}",
            "auto",
            "hi",
            "Thi",
        ),
        (
            "{% macro show(content) %}{% for p in content %}<{{ p.text }}>{% endfor %}"
            "{% endmacro %}"
            "{{ show(messages[0].content) }}",
            "auto",
            "hi",
            "<hi>",
        ),
        (
            "{% for w in messages[0].content.split('x') %}{{ w }},{% endfor %}",
            "auto",
            "axb",
            "a,b,",
        ),
    ],
)
def test_a_template_sees_content_in_the_form_that_it_goes_through(
    source: str, format_: Any, content: Any, seen: str
) -> None:
    chat = ChatTemplate(source, content_format=format_)
    assert chat.render([{"role": "user", "content": content}]) == seen


@pytest.mark.parametrize(
    ("source", "prompt"),
    [
        (PLAIN, "[user]hi[assistant]Well, "),
        (PLAIN.replace("m.content", "m.content | trim"), "[user]hi[assistant]Well,"),
        (PLAIN + "<end>", "[user]hi[assistant]Well, "),
        (PARTS, "(text:hi)(text:Well, "),
    ],
)
def test_a_continued_message_ends_the_prompt(source: str, prompt: str) -> None:
    messages = [USER, {"role": "assistant", "content": "Well, "}]
    rendered = ChatTemplate(source).render(
        messages, add_generation_prompt=False, continue_final_message=True
    )
    assert rendered == prompt
    assert messages[-1] == {"role": "assistant", "content": "Well, "}


def test_a_template_that_drops_the_last_message_cannot_continue_it() -> None:
    with pytest.raises(BadPayload, match="can't be continued"):
        ChatTemplate("{{ messages[0].role }}").render([USER], continue_final_message=True)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ raise_exception('only users') }}", "only users"),
        ("{{ raise_exception('a\nb' * 1000) }}", "a b"),
        ("{{ messages[7].role }}", "no element 7"),
        ("{{ messages[0].role + 3 }}", "str"),
        ("{{ 1 // 0 }}", "zero"),
        ("{{ messages | tojson(indent='x') | length + 'a' }}", "unsupported"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recurses"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ range(10**9) | list }}", "[Rr]ange"),
    ],
)
def test_what_a_template_cannot_do_is_an_error_of_one_line(source: str, said: str) -> None:
    with pytest.raises(BadPayload, match=said) as caught:
        ChatTemplate(source).render([USER])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert caught.value.field == "messages"


def test_a_lone_surrogate_is_refused_and_its_place_said() -> None:
    with pytest.raises(BadPayload, match="lone surrogate at character 8"):
        ChatTemplate(PLAIN).render([{"role": "user", "content": "ab\ud800"}])


def test_generation_marks_and_loop_controls_are_known() -> None:
    source = (
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
        "{% generation %}{% set x = 1 %}{{ m.content }}{% endgeneration %}{{ x }}{% endfor %}"
    )
    assert ChatTemplate(source).render([USER, USER]) == "hi"


def test_json_in_templates_keeps_its_characters() -> None:
    tools = [{"name": "<ü>", "b": 1, "a": [1, 2]}]
    rendered = ChatTemplate("{{ tools | tojson }}").render([USER], tools=tools)
    assert rendered == '[{"name": "<ü>", "b": 1, "a": [1, 2]}]'
