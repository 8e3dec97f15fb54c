"""What a body may hold, what it is read as, and what is said about the rest."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmi.core import BadPayload, Sampling
from lmi.schemas import ParsedRequest, SchemaConfig, parse
from lmi.schemas.body import LmiBody, LmiParameters
from lmi.schemas.fields import MAX_SEED, MAX_STOP_LENGTH, MAX_STOPS

FAST = settings(max_examples=25, deadline=None)

C036 = SchemaConfig()
C025 = SchemaConfig(form="0.25")
ASYNC = SchemaConfig(form="async")


def body(**parameters: Any) -> bytes:
    return json.dumps({"inputs": "x", "parameters": parameters}).encode()


def read(config: SchemaConfig = C036, **parameters: Any) -> ParsedRequest:
    return parse(body(**parameters), {}, config)


def refused(data: bytes, config: SchemaConfig = C036, content_type: str = "") -> BadPayload:
    with pytest.raises(BadPayload) as caught:
        parse(data, {"content-type": content_type}, config)
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_defaults_are_thirty_greedy_tokens() -> None:
    assert parse(b'{"inputs": "x"}', {}, C036).sampling == Sampling(max_new_tokens=30)
    assert parse(b'{"inputs": "x"}', {}, C025).sampling.temperature == 0.0
    # The asynchronous handler leaves out do_sample what vLLM does by itself: it samples.
    assert parse(b'{"inputs": "x"}', {}, ASYNC).sampling.temperature == 1.0


def test_null_is_absent() -> None:
    fields = dict.fromkeys(LmiParameters.model_fields)
    assert read(**fields).sampling == Sampling(max_new_tokens=30)
    assert not read(**fields).ignored


@pytest.mark.parametrize(
    ("config", "do_sample", "temperature", "expected"),
    [
        (C036, None, None, 0.0),
        (C036, None, 0.5, 0.5),
        (C036, False, 0.5, 0.0),
        (C036, True, None, 1.0),
        (C036, True, 0.5, 0.5),
        (C036, True, 0.0, 0.0),
        (C036, True, 1e-7, 0.0),
        (C025, None, 0.5, 0.0),
        (C025, False, 0.5, 0.0),
        (C025, True, None, 1.0),
        (C025, True, 0.5, 0.5),
        (ASYNC, None, None, 1.0),
        (ASYNC, None, 0.5, 0.5),
        (ASYNC, False, 0.5, 0.0),
        (ASYNC, True, None, 1.0),
    ],
)
def test_what_enables_sampling_is_each_forms_own_rule(
    config: SchemaConfig, do_sample: bool | None, temperature: float | None, expected: float
) -> None:
    parsed = read(config, do_sample=do_sample, temperature=temperature)
    assert parsed.sampling.temperature == expected


def test_every_sampling_parameter_arrives() -> None:
    sampling = read(
        max_new_tokens=5, min_new_tokens=2, do_sample=True, temperature=0.7, top_k=9, top_p=0.8,
        min_p=0.1, repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=-0.5, seed=11,
        stop_sequences=["a", "b"], stop="c", stop_token_ids=[3, 4], ignore_eos_token=True,
        include_stop_str_in_output=True, skip_special_tokens=False, details=True, top_n_tokens=2,
        decoder_input_details=True, n=2, best_of=3,
    ).sampling  # fmt: skip
    assert sampling == Sampling(
        max_new_tokens=5, min_new_tokens=2, temperature=0.7, top_k=9, top_p=0.8, min_p=0.1,
        repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=-0.5, seed=11,
        stop=("a", "b", "c"), stop_token_ids=(3, 4), ignore_eos=True, include_stop_text=True,
        skip_special_tokens=False, logprobs=2, prompt_logprobs=True, n=2, best_of=3,
    )  # fmt: skip


def test_what_is_added_to_tokens_or_kept_from_them_arrives() -> None:
    sampling = read(
        logit_bias={"7": -1.5}, allowed_token_ids=[7, 8], bad_words=["a"], bad_sequences="b"
    ).sampling
    assert sampling.logit_bias == ((7, -1.5),)
    assert sampling.allowed_token_ids == (7, 8)
    assert sampling.bad_words == ("a", "b")


def test_the_prompts_tokens_have_two_names() -> None:
    assert read(decoder_input_details=True).sampling.prompt_logprobs
    assert read(prompt_logprobs=0).sampling.prompt_logprobs
    assert not read().sampling.prompt_logprobs


def test_log_probabilities_are_computed_only_where_they_are_shown() -> None:
    assert read().sampling.logprobs is None
    assert read(details=True).sampling.logprobs == 0
    assert parse(b'{"inputs": "x", "stream": true}', {}, C036).sampling.logprobs == 0
    assert parse(b'{"inputs": "x"}', {}, SchemaConfig(tgi_compat=True)).sampling.logprobs == 0


def test_best_of_alone_returns_all_candidates() -> None:
    sampling = read(best_of=3, do_sample=True).sampling
    assert (sampling.n, sampling.best_of) == (3, 3)
    assert (read(n=2, do_sample=True).sampling.best_of) == 2


def test_a_seed_may_come_as_text() -> None:
    assert read(seed="12").sampling.seed == 12
    assert read(seed=-MAX_SEED - 1).sampling.seed == -MAX_SEED - 1


def test_truncate_and_the_adapter_go_to_the_engine() -> None:
    data = json.dumps({"inputs": ["a", "b"], "adapters": ["l"], "parameters": {"truncate": 4}})
    parsed = parse(data.encode(), {}, C036)
    first, second = parsed.generations([7, 8])
    assert (first.id, first.prompt, second.id, second.prompt) == (7, "a", 8, "b")
    assert first.truncate_prompt_tokens == second.truncate_prompt_tokens == 4
    assert first.adapter == second.adapter == "l"
    header = {"x-amzn-sagemaker-adapter-identifier": "h"}
    assert parse(data.encode(), header, C036).adapter == "h"


@pytest.mark.parametrize(
    ("stream", "formatter", "content_type", "streamed"),
    [
        (False, None, "application/json", False),
        (True, None, "application/jsonlines", True),
        (False, "jsonlines", "application/jsonlines", True),
        (True, "json", "application/json", False),
        (True, "sse", "text/event-stream", True),
        (True, "none", "text/plain", True),
    ],
)
def test_the_formatter_decides_and_stream_decides_where_there_is_none(
    stream: bool, formatter: str | None, content_type: str, streamed: bool
) -> None:
    asked = json.dumps({"inputs": "x", "stream": stream}).encode()
    by_option = parse(asked, {}, SchemaConfig(output_formatter=formatter))
    fields = {"inputs": "x", "stream": stream, "parameters": {"output_formatter": formatter}}
    by_request = parse(json.dumps(fields).encode(), {}, C036)
    for parsed in (by_option, by_request):
        assert (parsed.content_type, parsed.streamed) == (content_type, streamed)


def test_a_request_overrides_the_models_formatter() -> None:
    data = b'{"inputs": "x", "stream": true, "parameters": {"output_formatter": "jsonlines"}}'
    parsed = parse(data, {}, SchemaConfig(output_formatter="sse"))
    assert parsed.content_type == "application/jsonlines"


def test_tgi_streams_events() -> None:
    parsed = parse(b'{"inputs": "x", "stream": true}', {}, SchemaConfig(tgi_compat=True))
    assert parsed.content_type == "text/event-stream"


def test_a_formatter_that_nobody_knows_is_reported_and_goes_by_stream() -> None:
    parsed = read(output_formatter="xml")
    assert parsed.content_type == "application/json"
    assert [str(each) for each in parsed.ignored] == ["output_formatter (not supported)"]


WRONG = [
    ("temperature", "hot", "a number"),
    ("temperature", True, "a number"),
    ("temperature", -0.1, "at least 0"),
    ("temperature", [1], "a number"),
    ("top_p", 0, "more than 0"),
    ("top_p", 1.1, "at most 1"),
    ("top_k", 1.5, "a whole number"),
    ("top_k", -2, "at least -1"),
    ("max_new_tokens", 0, "at least 1"),
    ("max_new_tokens", -3, "at least 1"),
    ("max_new_tokens", True, "a whole number"),
    ("max_new_tokens", "30", "a whole number"),
    ("max_new_tokens", 10**40, "at most 2147483647"),
    ("seed", 2**63, f"at most {MAX_SEED}"),
    ("seed", "x", "a whole number"),
    ("seed", "9" * 30, "a whole number"),
    ("do_sample", "yes", "true or false"),
    ("do_sample", 1, "true or false"),
    ("details", 1, "true or false"),
    ("stop", 3, "a list"),
    ("stop_sequences", "x" * (MAX_STOP_LENGTH + 1), f"at most {MAX_STOP_LENGTH} characters"),
    ("n", 0, "at least 1"),
    ("best_of", 1000, "at most 128"),
    ("repetition_penalty", 0, "more than 0"),
    ("top_n_tokens", -1, "at least 0"),
    ("output_formatter", 3, "a text"),
]


@pytest.mark.parametrize(("field", "value", "want"), WRONG)
@pytest.mark.parametrize("config", [C036, C025, ASYNC], ids=["0.36", "0.25", "async"])
def test_a_wrong_value_is_an_error_that_names_the_field_and_what_is_right(
    config: SchemaConfig, field: str, value: object, want: str
) -> None:
    error = refused(body(**{field: value}), config)
    assert (error.code, error.field or "") == (424, error.field)
    assert (error.field or "").startswith(f"parameters.{field}")
    assert f"expected {want}" in str(error)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["temperature", "top_p", "max_new_tokens", "seed"])
def test_numbers_that_are_none_are_refused(field: str, number: str) -> None:
    data = f'{{"inputs": "x", "parameters": {{"{field}": {number}}}}}'.encode()
    assert refused(data).field == f"parameters.{field}"


def test_too_many_stop_strings_are_refused_quickly() -> None:
    error = refused(
        b'{"inputs": "x", "parameters": {"stop_sequences": ["s"' + b', "s"' * 1_000_000 + b"]}}"
    )
    assert error.field == "parameters.stop_sequences"
    assert f"at most {MAX_STOPS} entries" in str(error)
    assert len(str(error)) < 300


def test_an_empty_stop_string_is_refused_by_its_place() -> None:
    assert refused(body(stop=["a", ""])).field == "parameters.stop[1]"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"inputs": "\\ud800"}', "not JSON"),
        (b"[]", "object"),
        (b"3", "object"),
        (b"null", "object"),
        (b"{}", "'inputs' is missing"),
        (b'{"inputs": null}', "inputs"),
        (b'{"inputs": ""}', "inputs"),
        (b'{"inputs": []}', "inputs"),
        (b'{"inputs": ["a", 3]}', "inputs[1]: expected a text"),
        (b'{"inputs": ["a", ""]}', "inputs[1]: expected a text that is not empty"),
        (b'{"inputs": {"a": 1}}', "inputs"),
        (b'{"inputs": "a", "parameters": []}', "parameters"),
        (b'{"inputs": "a", "parameters": "b"}', "parameters"),
        (b'{"inputs": "a", "stream": 1}', "stream"),
        (b'{"messages": []}', "messages: expected a list that is not empty"),
        (b'{"inputs": "a", "adapters": ["a", "b"]}', "adapters"),
    ],
)
@pytest.mark.parametrize("config", [C036, C025, ASYNC], ids=["0.36", "0.25", "async"])
def test_a_body_that_is_no_request_is_refused_by_name(
    data: bytes, named: str, config: SchemaConfig
) -> None:
    assert named in str(refused(data, config))


def test_an_error_begins_as_the_forms_own() -> None:
    start = "Input Parsing failed. Ensure that the request payload is valid. "
    assert str(refused(b"{")).startswith(start)
    assert str(refused(b"{", C025)).startswith(start)
    assert str(refused(b"{", ASYNC)).startswith("Input parsing failed: ")


def test_an_error_never_repeats_the_prompt() -> None:
    for data in (
        b'{"inputs": ["SECRET", 3]}',
        b'{"inputs": "SECRET", "parameters": 3}',
        b'{"inputs": {"SECRET": "SECRET"}}',
        b'{"inputs": "SECRET',
    ):
        assert "SECRET" not in str(refused(data))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"n": 2, "stream": True, "do_sample": True}, "parameters.n"),
        ({"best_of": 2, "stream": True, "do_sample": True}, "parameters.best_of"),
        ({"n": 2}, "parameters.n"),
        ({"best_of": 2}, "parameters.best_of"),
        ({"n": 3, "best_of": 2, "do_sample": True}, "parameters.best_of"),
        ({"min_new_tokens": 31}, "parameters.min_new_tokens"),
        ({"num_beams": 4}, "parameters.num_beams"),
        ({"num_beams": "SECRET"}, "parameters.num_beams"),
        ({"guided_json": {}, "guided_regex": "a"}, "parameters.guided_regex"),
        ({"output_formatter": "3p"}, "parameters.output_formatter"),
    ],
)
def test_fields_that_contradict_each_other_or_cannot_be_had_are_refused(
    fields: dict[str, Any], field: str
) -> None:
    stream = fields.pop("stream", False)
    data = {"inputs": "x", "stream": stream, "parameters": fields}
    error = refused(json.dumps(data).encode())
    assert error.field == field
    assert "SECRET" not in str(error)


def test_a_list_is_answered_whole_only() -> None:
    assert refused(b'{"inputs": ["a", "b"], "stream": true}').field == "inputs"


def test_several_choices_can_be_streamed_where_lines_have_an_index() -> None:
    data = b'{"inputs": "x", "stream": true, "parameters": {"n": 2}}'
    assert parse(data, {}, ASYNC).streamed


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("temprature", "temprature (temperature?)"),
        ("max_new_token", "max_new_token (max_new_tokens?)"),
        ("TOP_P", "TOP_P (top_p?)"),
        ("stop_sequence", "stop_sequence (stop_sequences?)"),
        ("typical_p", "typical_p (not supported)"),
        ("zzz", "zzz"),
        ("stream", "stream (stream beside parameters?)"),
        ("a\r\nb\u2028c", "a??b?c"),
    ],
)
def test_an_unknown_parameter_is_ignored_and_said(written: str, said: str) -> None:
    parsed = read(**{written: 1})
    assert [str(each) for each in parsed.ignored] == [said]
    assert parsed.sampling == Sampling(max_new_tokens=30)


def test_a_misspelt_field_of_the_body_is_said_too() -> None:
    parsed = parse(b'{"inputs": "x", "paramters": {}, "model": "m"}', {}, C036)
    assert [str(each) for each in parsed.ignored] == ["paramters (parameters?)"]


def test_only_a_few_of_very_many_unknown_names_are_said() -> None:
    parsed = read(**{f"unknown{i}": i for i in range(10_000)})
    assert len(parsed.ignored) == 8
    assert len(read(**{"x" * 100_000: 1}).ignored[0].name) == 64


def test_strict_parameters_refuses_the_unknown_with_the_nearest_name() -> None:
    error = refused(body(temprature=1), SchemaConfig(strict_parameters=True))
    assert error.field == "parameters.temprature"
    assert "temprature (temperature?)" in str(error)
    assert read(SchemaConfig(strict_parameters=True), temperature=1.0).sampling.temperature == 1


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "application/x-www-form-urlencoded", "x/y; charset=a"]
)
def test_a_json_body_is_read_whatever_it_is_called(content_type: str) -> None:
    assert parse(b'{"inputs": "x"}', {"content-type": content_type}, C036).inputs == ("x",)


def test_a_plain_text_is_the_prompt() -> None:
    headers = {"content-type": "text/plain; charset=utf-8"}
    assert parse("ü {".encode(), headers, C036).inputs == ("ü {",)
    assert "UTF-8" in str(refused(b"\xff", content_type="text/plain"))
    assert refused(b"x", content_type="image/png").field == "content-type"


def read_or_refuse(data: bytes, config: SchemaConfig) -> ParsedRequest | BadPayload:
    try:
        return parse(data, {}, config)
    except BadPayload as error:
        return error


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
NAMES = st.sampled_from([*LmiParameters.model_fields, "num_beams", "guided_json", "typo"])
TOP = st.sampled_from([*LmiBody.model_fields, "messages", "prompt", "typo"])


@FAST
@given(
    st.dictionaries(TOP, JSON), st.dictionaries(NAMES, JSON), st.sampled_from([C036, C025, ASYNC])
)
def test_any_body_becomes_a_request_or_an_error_of_one_line(
    top: dict[str, object], parameters: dict[str, object], config: SchemaConfig
) -> None:
    for fields in (top, {**top, "inputs": "x", "parameters": parameters}):
        data = json.dumps(fields).encode()
        outcome = read_or_refuse(data, config)
        if isinstance(outcome, BadPayload):
            assert re.fullmatch(r"[^\n\r]{10,600}", str(outcome))
        else:
            assert outcome.inputs
            assert outcome.reply() is not None


@FAST
@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    refused(data)
