"""What chat and completion bodies may hold, what they are read as, and how the rest is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmi.core import BadPayload, Delta, Finish, Grammar, LmiError, Route, Sampling, Usage
from lmi.schemas import (
    ChatBody,
    CompletionBody,
    ParsedRequest,
    SchemaConfig,
    Serving,
    UnknownModel,
    openai_status,
    parse,
)
from lmi.text import ChatTemplate
from tests.unit.schemas.openai_cases import SERVING, TEMPLATE

FAST = settings(max_examples=25, deadline=None)
C036 = SchemaConfig()
ASYNC = SchemaConfig(form="async")

USER: dict[str, Any] = {"role": "user", "content": "SECRET"}


def chat(
    route: Route = Route.CHAT,
    config: SchemaConfig = C036,
    serving: Serving = SERVING,
    **fields: Any,
) -> ParsedRequest:
    data = json.dumps({"messages": [USER], **fields}).encode()
    return parse(data, {}, config, route, serving)


def completion(
    route: Route = Route.COMPLETIONS, config: SchemaConfig = C036, **fields: Any
) -> ParsedRequest:
    data = json.dumps({"prompt": "SECRET", **fields}).encode()
    return parse(data, {}, config, route, SERVING)


def refused(call: Any, **fields: Any) -> BadPayload:
    with pytest.raises(BadPayload) as caught:
        call(**fields)
    assert re.fullmatch(r"[^\n\r]{5,600}", str(caught.value))
    assert "SECRET" not in str(caught.value)
    return caught.value


def test_the_defaults_are_openais() -> None:
    assert chat().sampling == Sampling(max_new_tokens=2**31 - 1, temperature=1.0)
    assert completion().sampling == Sampling(max_new_tokens=16, temperature=1.0)
    assert chat().inputs == ("<user>SECRET\n<assistant>",)
    assert completion().inputs == ("SECRET",)
    assert not chat().add_special_tokens
    assert completion().add_special_tokens


@pytest.mark.parametrize("call", [chat, completion])
def test_null_is_absent(call: Any) -> None:
    kind = ChatBody if call is chat else CompletionBody
    fields: dict[str, Any] = dict.fromkeys(kind.model_fields)
    del fields["messages" if call is chat else "prompt"]
    parsed = call(**fields)
    assert parsed.sampling == call().sampling
    assert not parsed.ignored


@pytest.mark.parametrize("call", [chat, completion])
def test_every_sampling_parameter_arrives(call: Any) -> None:
    fields: dict[str, Any] = {"logprobs": True, "top_logprobs": 2} if call is chat else {}
    sampling = call(
        max_tokens=5, min_tokens=2, temperature=0.7, top_k=9, top_p=0.8, min_p=0.1,
        repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=-0.5, seed=11,
        stop=["a", "b"], stop_token_ids=[3, 4], ignore_eos=True, include_stop_str_in_output=True,
        skip_special_tokens=False, n=2, best_of=3, logit_bias={"7": -100, "8": 1.5},
        allowed_token_ids=[7, 8], bad_words=["x"], guided_regex="a+",
        **(fields or {"logprobs": 2}),
    ).sampling  # fmt: skip
    assert sampling == Sampling(
        max_new_tokens=5, min_new_tokens=2, temperature=0.7, top_k=9, top_p=0.8, min_p=0.1,
        repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=-0.5, seed=11,
        stop=("a", "b"), stop_token_ids=(3, 4), ignore_eos=True, include_stop_text=True,
        skip_special_tokens=False, logprobs=2, n=2, best_of=3, logit_bias=((7, -100), (8, 1.5)),
        allowed_token_ids=(7, 8), bad_words=("x",), grammar=Grammar("regex", "a+"),
    )  # fmt: skip


def test_max_completion_tokens_is_the_newer_name_and_wins() -> None:
    assert chat(max_tokens=5).sampling.max_new_tokens == 5
    assert chat(max_tokens=5, max_completion_tokens=6).sampling.max_new_tokens == 6


def test_logprobs_are_asked_for_as_each_dialect_says_it() -> None:
    assert chat(logprobs=True).sampling.logprobs == 0
    assert chat(logprobs=False).sampling.logprobs is None
    assert completion(logprobs=0).sampling.logprobs == 0
    assert refused(chat, top_logprobs=1).field == "top_logprobs"
    assert refused(completion, logprobs=True).field == "logprobs"


SCHEMA = {"type": "object", "properties": {"ü": {"type": "string"}}}
SCHEMA_TEXT = json.dumps(SCHEMA, ensure_ascii=False)


@pytest.mark.parametrize(
    ("fields", "grammar"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Grammar("json_object")),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            Grammar("json", SCHEMA_TEXT),
        ),
        ({"guided_json": SCHEMA}, Grammar("json", SCHEMA_TEXT)),
        ({"guided_json": '{"type": "string"}'}, Grammar("json", '{"type": "string"}')),
        ({"guided_choice": ["a", "ü"]}, Grammar("choice", '["a", "ü"]')),
        ({"guided_grammar": "root ::= x"}, Grammar("grammar", "root ::= x")),
        ({"structured_outputs": {"regex": "a"}}, Grammar("regex", "a")),
        ({"structured_outputs": {"json": SCHEMA}}, Grammar("json", SCHEMA_TEXT)),
        ({"structured_outputs": {"json_object": True}}, Grammar("json_object")),
        (
            {"structured_outputs": {"json_object": False, "choice": ["a"]}},
            Grammar("choice", '["a"]'),
        ),
    ],
)
@pytest.mark.parametrize("call", [chat, completion])
def test_what_the_text_must_match_can_be_said_in_every_spelling(
    call: Any, fields: dict[str, Any], grammar: Grammar | None
) -> None:
    assert call(**fields).sampling.grammar == grammar
    lmi = {"inputs": "x", "parameters": fields}
    assert parse(json.dumps(lmi).encode(), {}, C036).sampling.grammar == grammar


@pytest.mark.parametrize(
    ("parameters", "grammar"),
    [
        ({"guided_decoding": {"regex": "a"}}, Grammar("regex", "a")),
        ({"grammar": {"type": "regex", "value": "a"}}, Grammar("regex", "a")),
        ({"grammar": {"type": "json", "value": {"a": 1}}}, Grammar("json", '{"a": 1}')),
    ],
)
def test_lmis_dialect_has_spellings_of_its_own(
    parameters: dict[str, Any], grammar: Grammar
) -> None:
    lmi = {"inputs": "x", "parameters": parameters}
    assert parse(json.dumps(lmi).encode(), {}, C036).sampling.grammar == grammar


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        ({"guided_regex": "a", "structured_outputs": {"regex": "b"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"regexp": "b"}}, "structured_outputs.regexp"),
        ({"temperature": 0, "n": 2}, "n"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"n": 1, "best_of": 2, "stream": True}, "best_of"),
        ({"max_tokens": 4, "min_tokens": 5}, "min_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"use_beam_search": True}, "use_beam_search"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"suffix": "x"}, "suffix"),
        ({"max_gen_len": 3}, "max_gen_len"),
        ({"chat_template": "{{ messages }}"}, "chat_template"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
    ],
)
@pytest.mark.parametrize("call", [chat, completion])
def test_what_cannot_be_had_or_contradicts_is_refused_by_name(
    call: Any, fields: dict[str, Any], field: str
) -> None:
    error = refused(call, **fields)
    assert (error.field or "").startswith(field)
    assert openai_status(error) == 400


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "SECRET"}, "messages"),
        ({"messages": [{"content": "SECRET"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [USER, {"role": "user", "content": [{"type": "image_url"}]}]},
         "messages[1].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0]"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [{"type": "function"}], "tool_choice": "auto"}, "tools"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"echo": True}, "echo"),
    ],
)  # fmt: skip
def test_what_a_chat_cannot_be_is_refused_by_name(fields: dict[str, Any], field: str) -> None:
    assert refused(chat, **fields).field == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["SECRET", 3]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": {"SECRET": 1}}, "prompt"),
        ({"echo": True, "logprobs": 1, "n": 2, "stream": True}, "echo"),
        ({"echo": True, "prompt": [1], "n": 2, "stream": True}, "echo"),
    ],
)
def test_what_a_completion_cannot_be_is_refused_by_name(fields: dict[str, Any], field: str) -> None:
    assert (refused(completion, **fields).field or "").startswith(field)


@pytest.mark.parametrize(
    ("prompt", "inputs"),
    [
        ("a", ("a",)),
        ("", ("",)),
        ([1, 2], ((1, 2),)),
        (["a", "b"], ("a", "b")),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_a_prompt_is_a_text_or_ids_or_a_list_of_either(prompt: Any, inputs: Any) -> None:
    parsed = completion(prompt=prompt)
    assert parsed.inputs == inputs
    assert [each.prompt for each in parsed.generations(range(len(inputs)))] == list(inputs)


def test_echo_asks_for_the_prompts_tokens_only_where_they_are_needed() -> None:
    assert not completion(echo=True).sampling.prompt_logprobs
    assert completion(echo=True, prompt=[1]).sampling.prompt_logprobs
    shown = completion(echo=True, logprobs=2).sampling
    assert (shown.prompt_logprobs, shown.prompt_top) == (True, 2)


def test_a_bias_is_by_token_id() -> None:
    assert "expected a token id, as a text of digits" in str(refused(chat, logit_bias={"x": 1}))


def test_tools_are_shown_to_the_template_when_no_call_can_come() -> None:
    serving = Serving("m", chat=ChatTemplate("{{ tools | tojson }}{{ messages[0].content }}"))
    tools = [{"type": "function", "function": {"name": "f"}}]
    parsed = chat(serving=serving, tools=tools, tool_choice="none")
    assert parsed.inputs == (json.dumps(tools) + "SECRET",)
    assert chat(tools=[]).inputs == chat().inputs


def test_the_arguments_of_past_calls_reach_the_template_as_objects() -> None:
    serving = Serving("m", chat=ChatTemplate("{{ messages | tojson }}"))
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "ok"},
    ]
    (prompt,) = chat(serving=serving, messages=messages).inputs
    assert isinstance(prompt, str)
    seen = json.loads(prompt)
    assert seen[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}
    assert seen[1]["content"] == ""
    assert seen[2] == messages[2]


def test_variables_reach_the_template() -> None:
    serving = Serving(
        "m", chat=ChatTemplate("{{ thinking }} {{ reasoning_effort }} {{ documents }}")
    )
    parsed = chat(
        serving=serving,
        chat_template_kwargs={"thinking": False},
        reasoning_effort="low",
        documents=[{"a": "b"}],
    )
    assert parsed.inputs == ("False low [{'a': 'b'}]",)


def test_a_final_message_can_be_continued() -> None:
    messages = [USER, {"role": "assistant", "content": "Well,"}]
    parsed = chat(messages=messages, continue_final_message=True)
    assert parsed.inputs == ("<user>SECRET\n<assistant>Well,",)
    assert chat(add_generation_prompt=False).inputs == ("<user>SECRET\n",)


def test_a_model_without_a_template_says_how_to_give_one() -> None:
    error = refused(chat, serving=Serving("m"))
    assert "option.chat_template" in str(error)


def test_a_template_that_refuses_says_why() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}")
    error = refused(chat, serving=Serving("m", chat=template))
    assert "roles must alternate" in str(error)
    assert error.field == "messages"


@pytest.mark.parametrize("form", ["0.36", "0.25", "async"])
def test_invocations_tells_the_dialects_by_their_fields(form: Any) -> None:
    config = SchemaConfig(form=form)
    route = Route.INVOCATIONS
    assert chat(route, config).inputs == ("<user>SECRET\n<assistant>",)
    assert completion(route, config).inputs == ("SECRET",)
    quoted = json.dumps({"inputs": 'say "messages" and "prompt"'}).encode()
    assert parse(quoted, {}, config).inputs == ('say "messages" and "prompt"',)


def test_of_two_fields_the_one_wins_that_the_form_asks_for_first() -> None:
    data = json.dumps({"inputs": "i", "prompt": "p"}).encode()
    assert parse(data, {}, C036).inputs == ("i",)
    assert refused(lambda: parse(data, {}, ASYNC)).field == "inputs"
    data = json.dumps({"inputs": "i", "messages": [USER]}).encode()
    assert parse(data, {}, ASYNC).inputs == ("i",)
    assert refused(lambda: parse(data, {}, C036, serving=SERVING)).field == "inputs"


@pytest.mark.parametrize(
    ("route", "config", "stream", "content_type"),
    [
        (Route.CHAT, ASYNC, True, "text/event-stream"),
        (Route.CHAT, SchemaConfig(output_formatter="jsonlines_chat"), True, "text/event-stream"),
        (Route.CHAT, C036, False, "application/json"),
        (Route.INVOCATIONS, C036, True, "text/event-stream"),
        (Route.INVOCATIONS, C036, False, "application/json"),
        (Route.INVOCATIONS, ASYNC, True, "application/jsonlines"),
        (Route.INVOCATIONS, SchemaConfig(output_formatter="jsonlines_chat"), True,
         "application/jsonlines"),
        (Route.INVOCATIONS, SchemaConfig(output_formatter="json_chat"), True, "application/json"),
        (Route.INVOCATIONS, SchemaConfig(output_formatter="sse_chat"), False, "text/event-stream"),
        (Route.INVOCATIONS, SchemaConfig(output_formatter="jsonlines"), True, "text/event-stream"),
    ],
)  # fmt: skip
def test_the_route_and_the_form_decide_how_an_answer_is_framed(
    route: Route, config: SchemaConfig, stream: bool, content_type: str
) -> None:
    parsed = chat(route, config, stream=stream)
    assert parsed.content_type == content_type
    assert parsed.streamed == (content_type != "application/json")


def test_a_chat_formatter_of_the_model_leaves_other_dialects_alone() -> None:
    config = SchemaConfig(output_formatter="sse_chat")
    assert parse(b'{"inputs": "x"}', {}, config).content_type == "application/json"
    stream = parse(b'{"inputs": "x", "stream": true}', {}, config)
    assert stream.content_type == "application/jsonlines"


def test_an_error_has_the_forms_words_on_invocations_and_none_of_them_on_openais_routes() -> None:
    assert str(refused(chat, n=0)).startswith("n=0")
    assert str(refused(chat, route=Route.INVOCATIONS, n=0)).startswith("Input Parsing failed. ")
    template = {"serving": Serving("m"), "route": Route.INVOCATIONS, "config": ASYNC}
    assert str(refused(chat, **template)).count("Input parsing failed: ") == 1


def test_what_is_not_honoured_is_said_and_what_has_no_effect_is_not() -> None:
    parsed = chat(
        user="u", metadata={"a": "b"}, store=False, temprature=1, length_penalty=1.0, suffix=None,
        audio=None, functions=[], stream=True, stream_options={"continuous_usage_stats": True},
    )  # fmt: skip
    assert [str(each) for each in parsed.ignored] == [
        "temprature (temperature?)",
        "length_penalty (not supported)",
        "stream_options.continuous_usage_stats",
    ]
    error = refused(chat, config=SchemaConfig(strict_parameters=True), temprature=1)
    assert "temprature (temperature?)" in str(error)


ADAPTERS = Serving("m", names=("base",), chat=TEMPLATE, adapters=("lora", "other"))


@pytest.mark.parametrize(
    ("model", "adapter", "shown"),
    [(None, None, "m"), ("m", None, "m"), ("base", None, "base"), ("lora", "lora", "lora")],
)
def test_the_model_is_one_of_its_names_or_an_adapter(
    model: str | None, adapter: str | None, shown: str
) -> None:
    parsed = chat(serving=ADAPTERS, model=model)
    assert parsed.adapter == adapter
    assert shown.encode() in _bytes(parsed)


def test_an_unknown_model_is_refused_on_openais_routes_only() -> None:
    with pytest.raises(UnknownModel, match="'zz' does not exist"):
        chat(serving=ADAPTERS, model="zz")
    with pytest.raises(UnknownModel) as caught:
        chat(serving=ADAPTERS, model="z" * 10_000)
    assert len(str(caught.value)) < 300
    assert chat(Route.INVOCATIONS, serving=ADAPTERS, model="zz").adapter is None


def test_an_adapter_is_named_by_header_query_body_or_model_in_that_order() -> None:
    header = {"x-amzn-sagemaker-adapter-identifier": "other"}
    body = json.dumps({"messages": [USER], "adapters": "a", "model": "lora"}).encode()
    query = Serving("m", chat=TEMPLATE, adapters=("lora",), adapter="q")
    assert parse(body, header, C036, Route.INVOCATIONS, query).adapter == "other"
    assert parse(body, {}, C036, Route.INVOCATIONS, query).adapter == "q"
    assert parse(body, {}, C036, Route.INVOCATIONS, ADAPTERS).adapter == "a"
    for fields in ({"inputs": "x"}, {"prompt": "x"}):
        data = json.dumps({**fields, "model": "lora"}).encode()
        assert parse(data, {}, C036, Route.INVOCATIONS, ADAPTERS).adapter == "lora"


def _bytes(parsed: ParsedRequest) -> bytes:
    return parsed.reply().feed(Delta(1, 0, (), Finish.EOS, Usage(1, 0)))


def read_or_refuse(data: bytes, route: Route) -> ParsedRequest | LmiError:
    try:
        return parse(data, {}, C036, route, SERVING)
    except LmiError as error:
        return error


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
NAMES = st.sampled_from(
    sorted({*ChatBody.model_fields, *CompletionBody.model_fields, "audio", "typo"})
)


@pytest.mark.parametrize("route", Route)
@FAST
@given(fields=st.dictionaries(NAMES, JSON), messages=st.booleans())
def test_any_body_becomes_a_request_or_an_error_of_one_line(
    route: Route, fields: dict[str, object], messages: bool
) -> None:
    whole = {"messages": [USER], "prompt": "x"}
    for given_fields in (fields, {**fields, **whole}, {**fields, "messages": [fields]}):
        outcome = read_or_refuse(json.dumps(given_fields).encode(), route)
        if isinstance(outcome, LmiError):
            assert re.fullmatch(r"[^\n\r]{5,900}", str(outcome))
        else:
            assert outcome.inputs
            assert outcome.reply() is not None
