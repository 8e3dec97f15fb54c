"""What the echo engine says, and when; the contract suite holds it to the rest."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmi.core import BadPayload, EngineDead, Finish, GenerationRequest, Sampling, TooLong
from lmi.engines.echo import EchoConfig, EchoEngine
from lmi.engines.echo_script import EOS_ID, EOS_TEXT, VOCAB_SIZE, answer, decode, encode

FAST = EchoConfig()
token_ids = st.lists(st.integers(0, VOCAB_SIZE - 1) | st.just(EOS_ID), min_size=1, max_size=9)


def run(engine: EchoEngine, request: GenerationRequest) -> tuple[str, Finish | None]:
    """Submit and poll to the end of a request with one choice."""
    engine.submit(request)
    text, finish = "", None
    while finish is None:
        for delta in engine.poll(0):
            text += delta.text
            finish = delta.finish
    return text, finish


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_decoding_is_the_inverse_of_encoding(text: str) -> None:
    assert decode(encode(text)) == text


@settings(deadline=None)
@given(
    period=token_ids,
    length=st.integers(1, 40),
    skip_special_tokens=st.booleans(),
    logprobs=st.sampled_from([None, 0, 2]),
)
def test_an_answer_is_the_decoding_of_its_ids_however_often_it_repeats(
    period: list[int], length: int, skip_special_tokens: bool, logprobs: int | None
) -> None:
    sampling = Sampling(ignore_eos=True, skip_special_tokens=skip_special_tokens, logprobs=logprobs)
    said = answer(period, length, sampling, eos_after=None)
    tokens = [token for step in said.tokens for token in step]
    ids = list(itertools.islice(itertools.cycle(period), length))
    assert [token.id for token in tokens] == ids
    joined = "".join([token.text for token in tokens])
    assert joined == decode(ids, skip_special_tokens=skip_special_tokens)
    assert said.finish is Finish.LENGTH
    ranked = {len(token.top) for token in tokens}
    assert ranked == {logprobs or 0}


@settings(deadline=None)
@given(
    text=st.text("abcé", min_size=1, max_size=12),
    stop=st.text("abcé", min_size=1, max_size=5),
)
def test_a_stop_string_cuts_where_the_whole_text_has_it_first(text: str, stop: str) -> None:
    ids = encode(text)
    said = answer(ids, 30, Sampling(stop=(stop,)), eos_after=None)
    joined = "".join([token.text for step in said.tokens for token in step])
    whole = decode(itertools.islice(itertools.cycle(ids), 30))
    if stop in whole:
        assert (joined, said.finish) == (whole[: whole.find(stop)], Finish.STOP)
        shorter = decode([token.id for step in said.tokens[:-1] for token in step])
        assert stop not in shorter
    else:
        assert (joined, said.finish) == (whole, Finish.LENGTH)


def test_a_stop_string_counts_only_after_the_least_number_of_tokens() -> None:
    sampling = Sampling(max_new_tokens=9, min_new_tokens=3, stop=("cde",))
    said = run(EchoEngine(FAST), GenerationRequest(1, "abcdef", sampling))
    assert said == ("abcdefab", Finish.STOP)


def test_an_answer_repeats_its_prompt_until_it_is_long_enough() -> None:
    engine = EchoEngine(FAST)
    said = run(engine, GenerationRequest(1, "one two ", Sampling(max_new_tokens=6)))
    assert said == ("one two one two ", Finish.LENGTH)


def test_a_text_of_its_own_takes_the_place_of_the_prompt() -> None:
    engine = EchoEngine(EchoConfig(text="abc"))
    said = run(engine, GenerationRequest(1, "one two ", Sampling(max_new_tokens=2)))
    assert said == ("abcabc", Finish.LENGTH)


def test_an_answer_ends_by_itself_where_the_engine_was_told_so() -> None:
    engine = EchoEngine(EchoConfig(eos_after=2))
    assert run(engine, GenerationRequest(1, "abc")) == ("abcabc", Finish.EOS)
    longer = Sampling(max_new_tokens=9, min_new_tokens=3)
    assert run(engine, GenerationRequest(2, "abc", longer)) == ("abc" * 3, Finish.EOS)
    endless = Sampling(max_new_tokens=9, ignore_eos=True)
    assert run(engine, GenerationRequest(3, "abc", endless)) == ("abc" * 9, Finish.LENGTH)


def test_an_end_token_in_the_prompt_ends_the_answer_and_is_said_only_when_asked() -> None:
    engine = EchoEngine(FAST)
    prompt = (*encode("abc"), EOS_ID)
    assert run(engine, GenerationRequest(1, prompt)) == ("abc", Finish.EOS)
    shown = Sampling(max_new_tokens=3, ignore_eos=True, skip_special_tokens=False)
    said = run(engine, GenerationRequest(2, prompt, shown))
    assert said == (f"abc{EOS_TEXT}abc", Finish.LENGTH)


def test_choices_start_at_different_places_so_that_they_can_be_told_apart() -> None:
    engine = EchoEngine(FAST)
    engine.submit(GenerationRequest(1, "abcdef", Sampling(max_new_tokens=1, n=2, best_of=2)))
    assert sorted((delta.choice, delta.text) for delta in engine.poll(0)) == [
        (0, "abc"),
        (1, "def"),
    ]


def test_blocks_are_taken_for_whole_answers_and_limit_what_runs() -> None:
    engine = EchoEngine(EchoConfig(kv_blocks=5, block_size=4))
    for number in (1, 2, 3):
        engine.submit(GenerationRequest(number, "abc", Sampling(max_new_tokens=7)))
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.kv_blocks_used) == (2, 1, 4)
    with pytest.raises(TooLong, match="6 KV blocks: there are 5"):
        engine.submit(GenerationRequest(4, "abc", Sampling(max_new_tokens=20)))
    engine.cancel(1)
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.kv_blocks_used) == (2, 0, 4)


def test_truncating_keeps_the_end_of_the_prompt() -> None:
    engine = EchoEngine(FAST)
    request = GenerationRequest(1, "abcdefghi", Sampling(max_new_tokens=3), 2)
    assert run(engine, request) == ("defghidef", Finish.LENGTH)


def test_a_live_id_is_not_taken_twice_and_a_closed_engine_takes_nothing() -> None:
    engine = EchoEngine(FAST)
    engine.submit(GenerationRequest(1, "abc"))
    with pytest.raises(ValueError, match="1 is live"):
        engine.submit(GenerationRequest(1, "abc"))
    engine.close()
    with pytest.raises(EngineDead):
        engine.submit(GenerationRequest(2, "abc"))
    with pytest.raises(EngineDead):
        engine.poll(0)


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (Sampling(n=0), "n"),
        (Sampling(max_new_tokens=0), "max_new_tokens"),
        (Sampling(min_new_tokens=-1), "min_new_tokens"),
        (Sampling(stop=("a", "")), "stop"),
    ],
)
def test_an_impossible_value_is_refused_by_its_name(sampling: Sampling, field: str) -> None:
    with pytest.raises(BadPayload) as caught:
        EchoEngine(FAST).submit(GenerationRequest(1, "abc", sampling))
    assert caught.value.field == field


def test_latencies_hold_between_admission_and_tokens() -> None:
    config = EchoConfig(first_token_seconds=0.03, token_seconds=0.01)
    engine = EchoEngine(config)
    woken = threading.Event()
    engine.on_ready(woken.set)
    started = time.monotonic()
    engine.submit(GenerationRequest(1, "abc", Sampling(max_new_tokens=3)))
    assert not engine.poll(0)
    times = []
    while len(times) < 3:
        assert woken.wait(5)
        woken.clear()
        times += [time.monotonic() - started for _ in engine.poll(0)]
    engine.close()
    # A busy machine may be late, never early.
    assert times[0] >= 0.03
    assert times[2] >= 0.05


def test_without_latencies_each_poll_leaves_a_wake_while_there_is_work() -> None:
    engine = EchoEngine(FAST)
    wakes: list[int] = []
    engine.on_ready(lambda: wakes.append(1))
    engine.submit(GenerationRequest(1, "abc", Sampling(max_new_tokens=3)))
    engine.submit(GenerationRequest(2, "abc", Sampling(max_new_tokens=3)))
    for expected in (1, 2, 3, 3):
        assert len(wakes) == expected
        engine.poll(0)
