"""What is true of every chat and completion: the stream says what the whole answer says."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmi.core import Delta, Finish, LmiError, Route, Token, TopToken
from lmi.schemas import SchemaConfig, parse
from tests.support.scripted import chunks, split
from tests.unit.schemas.openai_cases import SERVING

FAST = settings(max_examples=25, deadline=None)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LOGPROB = st.floats(max_value=0, allow_nan=False, allow_infinity=False)
TOP = st.lists(st.builds(TopToken, st.integers(0, 20), TEXT, LOGPROB), max_size=2).map(tuple)
TOKEN = st.builds(Token, st.integers(0, 20), TEXT, LOGPROB, TOP)
CHOICE = st.tuples(
    st.lists(TOKEN, max_size=8), st.sampled_from([Finish.LENGTH, Finish.EOS, Finish.STOP])
)
CHOICES = st.lists(CHOICE, min_size=1, max_size=3)

Json = dict[str, Any]


def deltas_of(choices: list[tuple[list[Token], Finish]], seed: int) -> list[Delta]:
    """The choices' deltas, grouped and mixed at random."""
    chance = random.Random(seed)
    queues = [
        chunks(split(tokens, chance), finish, choice=place)
        for place, (tokens, finish) in enumerate(choices)
    ]
    mixed: list[Delta] = []
    while any(queues):
        queue = chance.choice([each for each in queues if each])
        mixed.append(queue.pop(0))
    return mixed


def body(chat: bool, n: int, logprobs: bool, **more: object) -> bytes:
    fields: Json = {"n": n, **more}
    if chat:
        fields |= {"messages": [{"role": "user", "content": "x"}], "logprobs": logprobs}
        fields |= {"top_logprobs": 2} if logprobs else {}
    else:
        fields = {"prompt": "x", "logprobs": 2 if logprobs else None, **fields}
    return json.dumps(fields).encode()


def run(chat: bool, data: bytes, deltas: list[Delta]) -> bytes:
    route = Route.CHAT if chat else Route.COMPLETIONS
    reply = parse(data, {}, SchemaConfig(), route, SERVING).reply()
    out = b"".join(reply.feed(delta) for delta in deltas)
    assert reply.done
    return out


def events(data: bytes) -> list[Json]:
    *found, done, rest = data.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in found]


def joined(chunks: list[Json], chat: bool) -> list[Json]:
    """The choices of a whole answer, made of a stream's chunks as a client would."""
    found: dict[int, Json] = defaultdict(lambda: {"text": "", "logprobs": None, "finish": None})
    for chunk in chunks:
        for choice in chunk["choices"]:
            own = found[choice["index"]]
            assert own["finish"] is None
            own["text"] += choice["delta"].get("content", "") if chat else choice["text"]
            own["finish"] = choice["finish_reason"]
            for name, values in (choice["logprobs"] or {}).items():
                own["logprobs"] = own["logprobs"] or {}
                own["logprobs"].setdefault(name, []).extend(values)
    return [found[index] for index in sorted(found)]


def listed(whole: Json, chat: bool) -> list[Json]:
    return [
        {
            "text": choice["message"]["content"] if chat else choice["text"],
            "logprobs": choice["logprobs"] if any((choice["logprobs"] or {}).values()) else None,
            "finish": choice["finish_reason"],
        }
        for choice in whole["choices"]
    ]


@pytest.mark.parametrize("chat", [True, False])
@FAST
@given(choices=CHOICES, logprobs=st.booleans(), one=st.integers(), two=st.integers())
def test_a_stream_joined_is_the_whole_answer(
    chat: bool, choices: list[tuple[list[Token], Finish]], logprobs: bool, one: int, two: int
) -> None:
    n = len(choices)
    whole = json.loads(run(chat, body(chat, n, logprobs), deltas_of(choices, one)))
    options = {"include_usage": True}
    asked = body(chat, n, logprobs, stream=True, stream_options=options)
    *stream, last = events(run(chat, asked, deltas_of(choices, two)))
    assert joined(stream, chat) == listed(whole, chat)
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert {chunk["usage"] for chunk in stream} == {None}
    assert {chunk["id"] for chunk in [*stream, last]} == {last["id"]}
    assert [choice["text"] for choice in listed(whole, chat)] == [
        "".join(token.text for token in tokens) for tokens, _ in choices
    ]


@FAST
@given(choice=CHOICE)
def test_the_bytes_of_an_answers_tokens_joined_are_the_answer(
    choice: tuple[list[Token], Finish],
) -> None:
    deltas = deltas_of([choice], 0)
    whole = json.loads(run(True, body(True, 1, True), deltas))["choices"][0]
    data = bytes([byte for token in whole["logprobs"]["content"] for byte in token["bytes"]])
    assert data.decode() == whole["message"]["content"]
    assert len(whole["logprobs"]["content"]) == len(choice[0])


@FAST
@given(choice=CHOICE)
def test_text_offsets_point_into_the_text(choice: tuple[list[Token], Finish]) -> None:
    tokens = choice[0]
    whole = json.loads(run(False, body(False, 1, True), deltas_of([choice], 0)))["choices"][0]
    for token, offset in zip(tokens, whole["logprobs"]["text_offset"], strict=True):
        assert whole["text"][offset : offset + len(token.text)] == token.text


@pytest.mark.parametrize("stream", [True, False])
@FAST
@given(choice=CHOICE, added=st.sampled_from(["", "<s>", "<s> "]))
def test_text_offsets_count_from_the_prompt_that_was_given(
    stream: bool, choice: tuple[list[Token], Finish], added: str
) -> None:
    prompt = (Token(1, added, special=True), Token(2, "Say ", -1.0), Token(3, "ü", -1.0))
    deltas = deltas_of([choice], 1)
    deltas[0] = deltas[0]._replace(prompt=prompt)
    data = run(False, body(False, 1, True, prompt="Say ü", echo=True, stream=stream), deltas)
    found = joined(events(data), False) if stream else listed(json.loads(data), False)
    text, logprobs = found[0]["text"], found[0]["logprobs"]
    assert text.startswith("Say ü")
    tokens = [*prompt[1:], *choice[0]]
    for token, offset in zip(tokens, logprobs["text_offset"][1:], strict=True):
        assert text[offset : offset + len(token.text)] == token.text
    assert logprobs["text_offset"][0] == 0


@pytest.mark.parametrize("chat", [True, False])
def test_the_first_chunk_of_each_choice_of_a_chat_has_the_role(chat: bool) -> None:
    choices = [([Token(1, "a"), Token(2, "b")], Finish.EOS)] * 2
    stream = events(run(chat, body(chat, 2, False, stream=True), deltas_of(choices, 3)))
    first: dict[int, Json] = {}
    for chunk in stream:
        (choice,) = chunk["choices"]
        first.setdefault(choice["index"], choice)
        assert ("role" in choice.get("delta", {})) == (chat and choice is first[choice["index"]])


@pytest.mark.parametrize("chat", [True, False])
def test_an_impossible_log_probability_is_a_number(chat: bool) -> None:
    never = float("-inf")
    tokens = [Token(1, "a", never, (TopToken(2, "b", never),))]
    for stream in (True, False):
        asked = body(chat, 1, True, stream=stream)
        data = run(chat, asked, deltas_of([(tokens, Finish.LENGTH)], 0))
        assert data.count(b"-9999.0") >= 2


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_before_anything_was_said_is_raised(stream: bool) -> None:
    error = LmiError("no")
    asked = body(True, 1, False, stream=stream)
    reply = parse(asked, {}, SchemaConfig(), Route.CHAT, SERVING).reply()
    with pytest.raises(LmiError, match="no"):
        reply.feed(Delta(1, 0, (), Finish.ERROR, error=error))
    with pytest.raises(LmiError, match="no"):
        reply.fail(error)


def test_no_two_answers_have_an_id() -> None:
    asked = body(True, 1, False)
    ids = {json.loads(run(True, asked, deltas_of([([], Finish.EOS)], 0)))["id"] for _ in range(50)}
    assert len(ids) == 50
