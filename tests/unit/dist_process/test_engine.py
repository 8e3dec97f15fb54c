"""The front half over a core without a model: text, stops, choices, and what is refused."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from lmi.core import (
    BadPayload,
    EngineDead,
    EngineError,
    Finish,
    GenerationRequest,
    Sampling,
    TooLong,
    UnknownAdapter,
    Usage,
)
from lmi.dist import Engine
from lmi.dist.messages import CoreRequest
from lmi.text import Tokenizer
from tests.support.drive import drive
from tests.support.scripted_core import EOS, POISON, REFUSED, ScriptedCore, logprob_at, token_at

PROMPT = (100, 101, 102)


def ids_of(prompt: tuple[int, ...], choice: int = 0, count: int = 100) -> list[int]:
    """What the core says, up to and with its end."""
    said = []
    for place in range(count):
        said.append(token_at(CoreRequest(0, prompt), choice, place))
        if said[-1] == EOS:
            break
    return said


def ask(engine: Engine, prompt: str | tuple[int, ...] = PROMPT, **sampling: Any) -> Any:
    request = GenerationRequest(1, prompt, Sampling(**{"max_new_tokens": 60, **sampling}))
    return drive(engine, [request])


@pytest.mark.parametrize("seed", range(20))
def test_the_text_is_the_decoding_of_the_tokens(
    engine: Engine, tokenizer: Tokenizer, seed: int
) -> None:
    end = tokenizer.encode("x")[-1]  # no open character, which the answer would finish
    prompt = (*random.Random(seed).choices(range(100, 200), k=4), end)
    said = ask(engine, prompt)[1, 0]
    assert said.ids == ids_of(prompt, count=60)
    assert said.text == tokenizer.decode(said.ids)
    assert said.finish is (Finish.EOS if said.ids[-1] == EOS else Finish.LENGTH)
    assert said.usage == Usage(5, len(said.ids))
    assert [token.special for token in said.tokens] == [
        token_id in tokenizer.special_ids for token_id in said.ids
    ]


def test_a_text_prompt_gets_the_tokenizers_special_tokens(
    engine: Engine, tokenizer: Tokenizer
) -> None:
    ids = tuple(tokenizer.encode("The quick"))
    assert tokenizer.special_ids >= {ids[0]}
    assert ask(engine, "The quick") == ask(engine, ids)


def test_truncation_keeps_the_prompts_end(engine: Engine) -> None:
    request = GenerationRequest(1, (9, 9, *PROMPT), truncate_prompt_tokens=3)
    said = drive(engine, [request])[1, 0]
    assert said.ids == ids_of(PROMPT, count=30)
    assert said.usage is not None
    assert said.usage.prompt_tokens == 3


def whole(engine: Engine, **sampling: Any) -> str:
    return str(ask(engine, **sampling)[1, 0].text)


@pytest.mark.parametrize("include", [True, False])
def test_a_stop_string_over_tokens_ends_the_choice_and_the_cores_work(
    engine: Engine, core: ScriptedCore, include: bool
) -> None:
    text = whole(engine, ignore_eos=True)
    stop = text[20:25]
    place = text.index(stop)
    said = ask(engine, stop=(stop,), include_stop_text=include, ignore_eos=True)[1, 0]
    assert said.finish is Finish.STOP
    assert said.text == text[: place + len(stop) if include else place]
    assert said.usage == Usage(3, len(said.tokens))
    assert core.cancels == [(1, 0)]
    assert engine.poll(0) == []
    assert not core.has_work


def test_a_stop_string_in_one_choice_leaves_the_others(engine: Engine, core: ScriptedCore) -> None:
    texts = [said.text for said in ask(engine, n=3, ignore_eos=True).values()]
    stop = texts[1][30:36]
    assert stop not in texts[0] + texts[2]
    answers = ask(engine, n=3, ignore_eos=True, stop=(stop,))
    assert [answers[1, choice].finish for choice in range(3)] == [
        Finish.LENGTH,
        Finish.STOP,
        Finish.LENGTH,
    ]
    assert answers[1, 1].text == texts[1][:30]
    assert (answers[1, 0].text, answers[1, 2].text) == (texts[0], texts[2])
    assert core.cancels == [(1, 1)]
    assert not core.has_work


def test_the_core_stops_when_stop_strings_have_ended_all_choices(
    engine: Engine, core: ScriptedCore
) -> None:
    texts = [said.text for said in ask(engine, n=2, ignore_eos=True).values()]
    stops = (texts[0][10:16], texts[1][30:36])
    answers = ask(engine, n=2, ignore_eos=True, stop=stops, max_new_tokens=2000)
    assert {said.finish for said in answers.values()} == {Finish.STOP}
    assert core.cancels == [(1, 0), (1, 1)]
    assert engine.poll(0) == []
    assert not core.has_work


def test_what_is_held_for_a_stop_comes_with_the_last_token(engine: Engine) -> None:
    text = whole(engine, ignore_eos=True)
    answers = ask(engine, ignore_eos=True, stop=(text[-4:] + "no",))
    assert answers[1, 0].text == text
    assert answers[1, 0].finish is Finish.LENGTH


@pytest.mark.parametrize("include", [True, False])
def test_a_stop_token_has_text_only_if_the_stop_is_wanted(
    engine: Engine, tokenizer: Tokenizer, include: bool
) -> None:
    ids = ids_of(PROMPT)
    stop = ids[8]
    count = ids.index(stop) + 1
    said = ask(engine, stop_token_ids=(stop,), include_stop_text=include)[1, 0]
    assert said.finish is Finish.STOP
    assert said.ids == ids[:count]
    assert said.text == tokenizer.decode(ids[: count if include else count - 1])


def test_special_tokens_are_shown_on_demand(engine: Engine, tokenizer: Tokenizer) -> None:
    prompt = next(p for n in range(3, 400) if ids_of(p := (n,))[-1] == EOS)
    ids = ids_of(prompt)
    sampling = {"max_new_tokens": 200, "skip_special_tokens": False}
    shown = ask(engine, prompt, include_stop_text=True, **sampling)[1, 0]
    assert shown.text == tokenizer.decode(ids, skip_special_tokens=False)
    assert shown.text.endswith("</s>")
    assert not ask(engine, prompt, **sampling)[1, 0].text.endswith("</s>")


def test_logprobs_come_as_asked(engine: Engine, tokenizer: Tokenizer) -> None:
    assert {token.logprob for token in ask(engine)[1, 0].tokens} == {None}
    plain = ask(engine, logprobs=0)[1, 0].tokens
    assert [token.logprob for token in plain] == [logprob_at(0, n) for n in range(len(plain))]
    assert all(token.top == () for token in plain)
    for token in ask(engine, logprobs=2)[1, 0].tokens:
        assert [top.text for top in token.top] == [tokenizer.text(top.id) for top in token.top]
        assert [top.logprob for top in token.top] == [0.0, -1.0]


def test_prompt_logprobs_come_once_with_the_first_choice(
    engine: Engine, tokenizer: Tokenizer
) -> None:
    answers = ask(engine, prompt_logprobs=True, n=2)
    prompt = answers[1, 0].prompt
    assert [token.id for token in prompt] == [*PROMPT]
    assert [token.logprob for token in prompt] == [None, -0.5, -0.5]
    assert [token.text for token in prompt] == [tokenizer.text(token_id) for token_id in PROMPT]
    assert answers[1, 1].prompt == ()


@pytest.mark.parametrize("logprobs", [None, 0])
def test_the_best_of_the_candidates_come_at_the_end(engine: Engine, logprobs: int | None) -> None:
    polls: list[int] = []
    request = GenerationRequest(
        1, PROMPT, Sampling(max_new_tokens=9, n=2, best_of=4, logprobs=logprobs, ignore_eos=True)
    )
    answers = drive(engine, [request], each_poll=lambda answers: polls.append(len(answers)))
    assert set(answers) == {(1, 0), (1, 1)}
    # Odd choices have the better logprobs.
    assert [answers[1, n].ids for n in (0, 1)] == [
        [token_at(CoreRequest(0, PROMPT, ignore_eos=True), choice, place) for place in range(9)]
        for choice in (1, 3)
    ]
    known = {token.logprob is not None for said in answers.values() for token in said.tokens}
    assert known == {logprobs is not None}


def test_candidates_that_failed_come_last(engine: Engine) -> None:
    answers = ask(engine, (POISON, 5), n=1, best_of=3)
    assert answers[1, 0].finish is Finish.ERROR
    assert isinstance(answers[1, 0].error, EngineError)


def test_a_cancelled_request_finishes_as_such(engine: Engine) -> None:
    def cancel(answers: Any) -> None:
        if len(answers[1, 0].tokens) == 4:
            engine.cancel(1)
            engine.cancel(77)  # unknown: ignored

    request = GenerationRequest(1, PROMPT, Sampling(max_new_tokens=1000, n=2, ignore_eos=True))
    answers = drive(engine, [request], each_poll=cancel)
    assert {said.finish for said in answers.values()} == {Finish.CANCELLED}
    assert [len(said.tokens) for said in answers.values()] == [4, 4]
    engine.cancel(1)
    assert engine.poll(0) == ()


def test_a_cancelled_ranked_request_finishes_too(engine: Engine) -> None:
    engine.submit(GenerationRequest(1, PROMPT, Sampling(max_new_tokens=99, best_of=3)))
    engine.poll(0)
    engine.cancel(1)
    deltas = engine.poll(1)
    assert [(delta.choice, delta.finish) for delta in deltas] == [(0, Finish.CANCELLED)]


def test_an_error_harms_one_request(engine: Engine) -> None:
    requests = [
        GenerationRequest(n, (POISON if n == 3 else 50 + n, 5), Sampling(max_new_tokens=8))
        for n in range(1, 6)
    ]
    answers = drive(engine, requests)
    for request in requests:
        said = answers[request.id, 0]
        if request.id == 3:
            assert said.finish is Finish.ERROR
            assert str(said.error) == "no finite logits"
            assert len(said.tokens) == 1
        else:
            assert said.error is None
            assert said.ids == ids_of(request.prompt, count=8)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"max_new_tokens": -(10**30)}, "max_new_tokens"),
        ({"n": 0}, "n"),
        ({"best_of": -1}, "best_of"),
        ({"n": 10**9}, "n"),
        ({"seed": 2**64}, "seed"),
        ({"seed": -(2**63) - 1}, "seed"),
        ({"stop": ("",)}, "stop"),
        ({"stop": ("a",) * 1_000_000}, "stop"),
        ({"stop": ("a" * 1_000_000,)}, "stop"),
        ({"stop_token_ids": (10**30,)}, "stop_token_ids"),
        ({"logprobs": 10**9}, "logprobs"),
    ],
)
def test_impossible_sampling_is_refused_by_the_name_of_its_field(
    engine: Engine, sampling: dict[str, Any], field: str
) -> None:
    with pytest.raises(BadPayload) as caught:
        engine.submit(GenerationRequest(1, PROMPT, Sampling(**sampling)))
    assert caught.value.field == field
    assert not ask(engine)[1, 0].error  # the same id, and the engine lives


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"prompt": ()}, BadPayload),
        ({"prompt": (5, 10**30)}, BadPayload),
        ({"prompt": (5, -1)}, BadPayload),
        ({"prompt": "a\ud800"}, BadPayload),
        ({"prompt": (5,) * 5000}, TooLong),
        ({"prompt": (REFUSED,)}, BadPayload),
        ({"truncate_prompt_tokens": 0}, BadPayload),
        ({"adapter": "mine"}, UnknownAdapter),
    ],
)
def test_an_impossible_request_is_refused_and_leaves_no_trace(
    engine: Engine, change: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        engine.submit(replace(GenerationRequest(1, PROMPT), **change))
    assert engine.poll(0) == ()
    assert ask(engine)[1, 0].finish is not None


def test_counts_without_a_limit_are_served(engine: Engine) -> None:
    said = ask(engine, stop_token_ids=(ids_of(PROMPT)[5],), top_k=10**30, max_new_tokens=10**30)
    assert said[1, 0].finish is Finish.STOP


def test_an_id_in_use_is_refused(engine: Engine) -> None:
    engine.submit(GenerationRequest(1, PROMPT))
    with pytest.raises(EngineError, match="id 1 is in use"):
        engine.submit(GenerationRequest(1, PROMPT))


def test_wake_is_called_while_there_is_something_to_poll(engine: Engine) -> None:
    wakes: list[None] = []
    engine.on_ready(lambda: wakes.append(None))
    engine.submit(GenerationRequest(1, PROMPT, Sampling(max_new_tokens=5)))
    over = False
    while not over:
        assert wakes
        wakes.clear()
        over = any(delta.finish for delta in engine.poll(0))
    assert not wakes


def test_a_bug_in_the_core_is_its_death(engine: Engine, core: ScriptedCore) -> None:
    core._script["bug_at_step"] = 2
    engine.submit(GenerationRequest(1, PROMPT))
    engine.poll(0)
    with pytest.raises(EngineDead, match="RuntimeError: an unforeseen thing"):
        engine.poll(0)


def test_stats_are_the_cores(engine: Engine) -> None:
    engine.submit(GenerationRequest(1, PROMPT, Sampling(n=40)))
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.kv_blocks_total) == (32, 8, 99)
