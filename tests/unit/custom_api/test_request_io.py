"""What formatters get: tokens are read one by one, in today's form and the older one."""

from __future__ import annotations

import json
import math

import pytest

from lmi.custom.api import RequestOutput, Sequence, TextGenerationOutput, TextInput, Token
from lmi.custom.api.formatting import get_output_formatter, json_formatter


def grown(*words: str, finish: str = "length", **parameters: object) -> TextGenerationOutput:
    output = TextGenerationOutput(7, TextInput(7, input_text="Say: ", parameters=parameters))
    for number, word in enumerate(words):
        last = number == len(words) - 1
        output.set_next_token(
            Token(number, word, -0.5), is_last_token=last, finish_reason=finish if last else None
        )
    output.finished = True
    return output


def test_the_next_token_is_a_tuple_of_four() -> None:
    sequence = grown("a", "b").sequences[0]
    token, index, first, last = sequence.get_next_token()
    assert (token.text, index, first, last) == ("a", 0, True, False)
    found = sequence.get_next_token()
    assert (found[0].text, *found[1:]) == ("b", 1, False, True)
    assert not sequence.has_next_token()
    assert sequence.get_next_token() == (None, -1, False, False)
    assert len(sequence.get_next_token()) == 4
    assert list(sequence.get_next_token()) == [None, -1, False, False]


def test_scripts_of_older_releases_take_three_from_it() -> None:
    sequence = grown("a", "b").sequences[0]
    token, first, last = sequence.get_next_token()
    assert (token.text, first, last) == ("a", True, False)
    sequence.get_next_token()
    token, first, last = sequence.get_next_token()
    assert (token, first, last) == (None, False, False)

    def often() -> tuple[object, ...]:
        token, first, last = sequence.get_next_token()
        return token, first, last

    for _ in range(100):  # the interpreter rewrites code that runs often
        assert often() == (None, False, False)
    with pytest.raises(ValueError, match="too many values"):
        token, first = sequence.get_next_token()


def test_the_last_token_is_known_once_it_came() -> None:
    sequence = Sequence()
    sequence.set_next_token(Token(1, "a"))
    assert sequence.get_last_token() is None
    sequence.set_next_token(Token(2, "b"), True)
    assert sequence.get_last_token().text == "b"


def test_top_tokens_are_read_one_by_one() -> None:
    output = grown("a")
    output.set_next_top_tokens([Token(1, "a", -0.1), Token(2, "b", -2.0)], 0)
    sequence = output.sequences[0]
    assert sequence.has_next_top_tokens()
    assert [token.id for token in sequence.get_next_top_tokens()] == [1, 2]
    assert sequence.get_next_top_tokens() is None
    assert output.get_top_tokens_as_dict()[0][1]["log_prob"] == -2.0


def test_tokens_have_the_fields_of_the_requests_schema() -> None:
    token = Token(3, "x", -1.5, special_token=True, error_msg="e")
    plain = {"id": 3, "text": "x", "log_prob": -1.5}
    assert Token(3, "x", -1.5).as_dict() == plain
    assert token.as_dict() == {**plain, "special_token": True, "error_msg": "e"}
    assert token.as_tgi_dict() == {"id": 3, "text": "x", "logprob": -1.5, "special": True}
    output = grown("a")
    assert output.get_tokens_as_dict()[0].keys() == plain.keys()
    output.input.tgi_compat = True
    assert "logprob" in output.get_tokens_as_dict()[0]
    output.prompt_tokens_details = [token]
    assert output.get_prompt_tokens_as_dict() == [token.as_tgi_dict()]


def test_an_output_has_its_best_sequence_from_the_start_and_others_as_they_come() -> None:
    output = TextGenerationOutput(1, TextInput(1))
    assert isinstance(output, RequestOutput)
    assert output.sequences[0].tokens == []
    output.set_next_token(Token(1, "b"), sequence_index=2)
    output.set_best_sequence_index(2)
    output.set_finish_reason("length", 2)
    assert output.sequences[output.best_sequence_index].finish_reason == "length"


def test_json_is_released_as_a_whole_at_the_end() -> None:
    output = grown('a"', "b")
    output.finished = False
    assert json_formatter(output) == ""
    output.finished = True
    assert json.loads(json_formatter(output)) == {"generated_text": 'a"b'}
    detailed = json.loads(json_formatter(grown("a", details=True, return_full_text=True)))
    assert detailed["generated_text"] == "Say: a"
    assert detailed["details"]["finish_reason"] == "length"
    assert detailed["details"]["tokens"] == [{"id": 0, "text": "a", "log_prob": -0.5}]
    output.input.tgi_compat = True
    assert isinstance(json.loads(json_formatter(output)), list)


def test_lines_and_events_come_token_by_token_and_join_to_the_text() -> None:
    for name, kind in (("jsonlines", "application/jsonlines"), ("sse", "text/event-stream")):
        formatter, content_type = get_output_formatter(name, stream=True)
        assert content_type == kind
        text = formatter(grown("a", "b", details=True))
        lines = [json.loads(line.removeprefix("data: ")) for line in text.split("\n") if line]
        assert [line["token"]["text"] for line in lines] == ["a", "b"]
        assert "generated_text" not in lines[0]
        assert lines[1]["generated_text"] == "ab"
        assert lines[1]["details"]["generated_tokens"] == 2


def test_a_formatter_is_chosen_by_name_by_stream_or_is_the_users() -> None:
    assert get_output_formatter(None, stream=False)[1] == "application/json"
    assert get_output_formatter(None, stream=True)[1] == "application/jsonlines"
    assert get_output_formatter(None, stream=True, tgi_compat=True)[1] == "text/event-stream"
    assert get_output_formatter(math.floor, stream=True) == (math.floor, None)
    plain, kind = get_output_formatter("none", stream=False)
    assert (plain(grown("a", "b")), kind) == ("ab", "text/plain")
    with pytest.raises(ValueError, match="expected one of json, jsonlines, sse, none"):
        get_output_formatter("xml", stream=False)
