"""Templates as models have them render to what transformers renders."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lmi.core import BadPayload
from lmi.text import ChatTemplate

pytestmark = pytest.mark.slow

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

CHATML = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set first = messages[0]['content'] %}
{%- else %}
    {%- set first = 'You help.' %}
{%- endif %}
{{- '<|im_start|>system\\n' + first + '<|im_end|>\\n' }}
{%- for message in messages if message.role != 'system' %}
    {{- '<|im_start|>' + message.role + '\\n' + (message.content | trim) + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

INSTRUCTIONS = """\
{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}
{% set system = '<<SYS>>\\n' + messages[0]['content'].strip() + '\\n<</SYS>>\\n\\n' %}
{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}
{{ bos_token }}{% for message in rest %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must alternate: user, assistant, user ...') }}
{% endif %}
{% if message['role'] == 'user' %}
{{ '[INST] ' + (system if loop.index0 == 0 else '') + message['content'] | trim + ' [/INST]' }}
{% else %}
{% generation %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endgeneration %}
{% endif %}
{% endfor %}
"""

TOOLS = """\
{%- set ns = namespace(last='') %}
{%- if tools %}
    {{- '<tools>\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=2) + '\\n' }}
        {%- if loop.index == 2 %}{% break %}{% endif %}
    {%- endfor %}
    {{- '</tools>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- set ns.last = message.role %}
    {%- if message.tool_calls is defined and message.tool_calls %}
        {%- for call in message.tool_calls %}
            {{- '<call>' ~ call.function.name ~ call.function.arguments | tojson ~ '</call>' }}
        {%- endfor %}
    {%- elif message.role == 'tool' %}
        {{- '<result>' + message.content + '</result>' }}
    {%- else %}
        {{- '<' + message.role + '>' + message.content }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt and ns.last != 'assistant' %}{{ '<assistant>' }}{% endif %}
{%- if thinking is defined and thinking %}<think>{% endif %}
"""

OWN = {"chatml": CHATML, "instructions": INSTRUCTIONS, "tools": TOOLS}

TALK = [
    {"role": "user", "content": "  What is ü? "},
    {"role": "assistant", "content": "A letter.\n"},
    {"role": "user", "content": "And <ß>?"},
]
CALL = {"id": "x", "type": "function", "function": {"name": "look", "arguments": {"q": "ä<"}}}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "talk": TALK,
    "system": [{"role": "system", "content": " Be brief. "}, *TALK],
    "out of turn": [*TALK, dict(TALK[0])],
    "calls": [
        TALK[0],
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "found", "tool_call_id": "x"},
    ],
}
FUNCTION = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
OPTIONS: tuple[dict[str, Any], ...] = (
    {"add_generation_prompt": True},
    {"add_generation_prompt": False},
    {"add_generation_prompt": True, "tools": [FUNCTION] * 3},
    {"add_generation_prompt": False, "continue_final_message": True},
    {"add_generation_prompt": True, "thinking": True},
)


def shipped() -> dict[str, str]:
    """The templates of real models that come with vLLM, where it is installed."""
    found = find_spec("vllm")
    if found is None or found.origin is None:
        return {}
    folder = Path(found.origin).parent / "transformers_utils" / "chat_templates"
    return {path.stem: path.read_text("utf-8") for path in sorted(folder.glob("*.jinja"))}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    import transformers
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    return transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()), **SPECIAL)


@pytest.mark.parametrize("name", [*OWN, *shipped()])
def test_a_prompt_is_what_transformers_makes_of_the_template(name: str, tokenizer: Any) -> None:
    source = {**OWN, **shipped()}[name]
    ours = ChatTemplate(source, SPECIAL)
    same = refused = 0
    for messages in CONVERSATIONS.values():
        for options in OPTIONS:
            theirs: str | None
            try:
                theirs = tokenizer.apply_chat_template(
                    copy.deepcopy(messages), chat_template=source, tokenize=False, **options
                )
            except Exception:  # whatever jinja or the template raises
                theirs = None
            named = {key: options[key] for key in options.keys() - {"thinking"}}
            variables = {key: options[key] for key in options.keys() & {"thinking"}}
            if theirs is None:
                refused += 1
                with pytest.raises(BadPayload):
                    ours.render(messages, **named, variables=variables)
            else:
                same += 1
                assert ours.render(messages, **named, variables=variables) == theirs
    assert same + refused == len(CONVERSATIONS) * len(OPTIONS)
    if name in OWN:
        assert same >= 5
