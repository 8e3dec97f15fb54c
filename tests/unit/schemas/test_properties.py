"""What is true of every answer: against json.dumps, and the stream against the whole."""

from __future__ import annotations

import json
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from lmi.core import Finish, Token
from lmi.schemas import SchemaConfig, parse
from tests.support.scripted import chunks, split

FAST = settings(max_examples=25, deadline=None)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TOKEN = st.builds(
    Token,
    st.integers(0, 2**31),
    TEXT,
    st.one_of(st.none(), st.floats(max_value=0, allow_nan=False, allow_infinity=False)),
)
TOKENS = st.lists(TOKEN, max_size=12)
FINISH = st.sampled_from([Finish.LENGTH, Finish.EOS, Finish.STOP, Finish.CANCELLED])
WORDS = {"length": "length", "eos": "eos_token", "stop": "eos_token", "cancelled": "abort"}


def run(config: SchemaConfig, fields: dict[str, object], deltas: list[object]) -> bytes:
    reply = parse(json.dumps(fields).encode(), {}, config).reply()
    data = b"".join(reply.feed(delta) for delta in deltas)  # type: ignore[arg-type]
    assert reply.done
    return data


def dumped(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def shown(token: Token) -> dict[str, object]:
    return {"id": token.id, "text": token.text, "log_prob": token.logprob}


@FAST
@given(TOKENS, FINISH, TEXT.filter(bool), st.booleans(), st.booleans(), st.integers())
def test_a_stream_is_what_json_dumps_writes_and_ends_with_the_whole_answer(
    tokens: list[Token], finish: Finish, prompt: str, details: bool, full: bool, seed: int
) -> None:
    deltas = chunks(split(tokens, random.Random(seed)), finish)
    parameters = {"details": details, "return_full_text": full}
    body = {"inputs": prompt, "parameters": parameters}
    stream = run(SchemaConfig(), {**body, "stream": True}, [*deltas])
    whole = run(SchemaConfig(), body, [*deltas])

    text = (prompt if full else "") + "".join(token.text for token in tokens)
    about = {
        "finish_reason": WORDS[finish],
        "generated_tokens": len(tokens),
        "inputs": prompt,
    }
    lines: list[dict[str, object]] = [{"token": shown(token)} for token in tokens]
    if not deltas[-1].tokens:
        lines.append({"token": {"id": -1, "text": "", "log_prob": None}})
    lines[-1]["generated_text"] = text
    answer: dict[str, object] = {"generated_text": text}
    if details:
        lines[-1]["details"] = about
        answer["details"] = {**about, "tokens": [shown(token) for token in tokens]}
    assert stream == b"".join(dumped(line) + b"\n" for line in lines)
    assert whole == dumped(answer)


@FAST
@given(TOKENS, FINISH, st.integers(), st.integers(), st.sampled_from(["0.36", "0.25", "async"]))
def test_how_deltas_are_grouped_changes_no_byte(
    tokens: list[Token], finish: Finish, one: int, two: int, form: str
) -> None:
    config = SchemaConfig(form=form)  # type: ignore[arg-type]
    for formatter in ("json", "jsonlines", "sse", "none"):
        fields: dict[str, object] = {
            "inputs": "x",
            "stream": True,
            "parameters": {"output_formatter": formatter, "return_full_text": True},
        }
        answers = []
        for seed in (one, two):
            groups = split(tokens, random.Random(seed))
            # An end without a token of its own is another script, not another grouping.
            while not groups[-1] and len(groups) > 1:
                groups.pop()
            answers.append(run(config, fields, [*chunks(groups, finish)]))
        assert answers[0] == answers[1]


@FAST
@given(TOKENS, FINISH, TEXT.filter(bool))
def test_0_25_pieces_are_the_whole_object_of_the_same_request(
    tokens: list[Token], finish: Finish, prompt: str
) -> None:
    config = SchemaConfig(form="0.25")
    deltas = chunks([(token,) for token in tokens] or [()], finish)
    fields: dict[str, object] = {
        "inputs": prompt,
        "parameters": {"output_formatter": "json", "return_full_text": True},
    }
    pieces = run(config, {**fields, "stream": True}, [*deltas])
    assert pieces == run(config, fields, [*deltas])
    lines = run(
        config,
        {"inputs": prompt, "stream": True, "parameters": {"return_full_text": True}},
        [*deltas],
    )
    texts = [text for line in lines.splitlines() for text in json.loads(line)["outputs"]]
    assert "".join(texts) == (json.loads(pieces)["generated_text"] if tokens else "")


@FAST
@given(TOKENS, FINISH, st.integers())
def test_async_lines_join_to_the_whole_text(tokens: list[Token], finish: Finish, seed: int) -> None:
    config = SchemaConfig(form="async")
    deltas = chunks(split(tokens, random.Random(seed)), finish)
    whole = json.loads(run(config, {"inputs": "x"}, [*deltas]))
    data = run(config, {"inputs": "x", "stream": True}, [*deltas])
    assert data.endswith(b"}\n\n\n")
    lines = [json.loads(line) for line in data.splitlines() if line]
    assert [line["generated_text"] for line in lines[:-1]] == [None] * (len(lines) - 1)
    assert lines[-1]["generated_text"] == whole["generated_text"]
    assert "".join(line["token"]["text"] for line in lines) == whole["generated_text"]


def test_an_impossible_log_probability_is_still_json() -> None:
    deltas = chunks([(Token(1, "a", float("-inf")),), (Token(2, "b", float("nan")),)])
    for stream in (True, False):
        fields: dict[str, object] = {"inputs": "x", "stream": stream}
        fields["parameters"] = {"details": True}
        data = run(SchemaConfig(), fields, [*deltas])
        assert b"Infinity" not in data
        assert b"NaN" not in data
        assert data.count(b"-9999.0") == 2
