"""The core: what a request asks for it gets, and nothing that one contains harms another."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lmi.core import EngineError, Finish, OutOfMemory, RequestError
from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore
from lmi.dist.messages import CoreEvent, CoreRequest
from tests.support.models import VOCAB, make_model, ragged_prompts
from tests.unit.dist.conftest import Serve

pytestmark = pytest.mark.slow

PROMPTS = ragged_prompts(6, 2, longest=60)


def new_core(folder: Path, **options: Any) -> EngineCore:
    return EngineCore(DistConfig(folder, dtype="float32", **options))


def tokens(events: list[CoreEvent]) -> list[int]:
    return [event.token for event in events if event.token is not None]


def test_mixed_requests_in_a_crowd_equal_each_alone(llama: Path, serve: Serve) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"temperature": 1.0, "seed": 1},
        {"temperature": 0.8, "top_k": 10, "seed": 2},
        {"temperature": 1.2, "top_p": 0.7, "seed": 3, "logprobs": 3},
        {"repetition_penalty": 3.0},
        {"stop_token_ids": tuple(range(3, 40))},
        {"temperature": 0.9, "min_p": 0.1, "seed": 4},
        {"presence_penalty": 1.5, "frequency_penalty": 0.5},
        {"temperature": 1.0, "seed": -5, "choices": 3},
        {"prompt_logprobs": True, "logprobs": 1},
        {"min_new_tokens": 20, "stop_token_ids": tuple(range(3, 200))},
        {"temperature": 5.0, "seed": 2**63 - 1},
    ]
    requests = [
        CoreRequest(i, PROMPTS[i], max_new_tokens=40, **extra) for i, extra in enumerate(options)
    ]
    crowd_core = new_core(llama, max_batch=5, prefill_tokens=32, kv_blocks=16)
    crowd = serve(crowd_core, requests)
    stats = crowd_core.stats()
    assert stats.chunks > 0
    assert stats.preemptions > 0
    alone_core = new_core(llama)
    for request in requests:
        alone = serve(alone_core, [request])[request.id]
        for choice in range(request.choices):
            left = [e for e in crowd[request.id] if e.choice == choice]
            right = [e for e in alone if e.choice == choice]
            assert tokens(left) == tokens(right)
            assert [e.finish for e in left] == [e.finish for e in right]
            assert [e.logprob for e in left] == pytest.approx([e.logprob for e in right], abs=1e-4)
    assert crowd_core.stats().kv_blocks_used == 0


def test_choices_of_one_seed_differ_and_are_numbered(llama: Path, serve: Serve) -> None:
    request = CoreRequest(1, PROMPTS[0], temperature=1.0, seed=7, choices=4, max_new_tokens=8)
    events = serve(new_core(llama), [request])[1]
    answers = {c: tokens([e for e in events if e.choice == c]) for c in range(4)}
    assert len({tuple(answer) for answer in answers.values()}) == 4
    single = serve(new_core(llama), [CoreRequest(1, PROMPTS[0], 8, temperature=1.0, seed=7)])
    assert tokens(single[1]) == answers[0]


def test_prompt_logprobs_equal_those_of_the_model(llama: Path, serve: Serve) -> None:
    prompt = max(PROMPTS, key=len)
    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    raw = torch.log_softmax(model(torch.tensor([prompt])).logits[0], dim=-1)
    want = [raw[i, token].item() for i, token in enumerate(prompt[1:])]
    core = new_core(llama, prefill_tokens=11)
    events = serve(core, [CoreRequest(1, prompt, 3, prompt_logprobs=True, choices=2)])[1]
    details = [e for e in events if e.detail is not None]
    assert len(details) == 1
    assert details[0] is next(e for e in events if e.choice == 0)
    assert details[0].detail is not None
    found = details[0].detail.prompt
    assert [token for token, _ in found] == list(prompt)
    assert found[0][1] is None
    assert [logprob for _, logprob in found[1:]] == pytest.approx(want, abs=1e-4)


def test_a_prompt_of_one_token_has_a_prompt_logprob_of_none(llama: Path, serve: Serve) -> None:
    events = serve(new_core(llama), [CoreRequest(1, (9,), 2, prompt_logprobs=True)])[1]
    assert events[0].detail is not None
    assert events[0].detail.prompt == ((9, None),)


def test_each_ending_has_its_name(llama: Path, serve: Serve) -> None:
    core = new_core(llama)
    answer = tokens(serve(core, [CoreRequest(1, PROMPTS[1], 10)])[1])
    stop = serve(core, [CoreRequest(2, PROMPTS[1], 10, stop_token_ids=(answer[4],))])[2]
    assert tokens(stop) == answer[: answer.index(answer[4]) + 1]
    assert stop[-1].finish is Finish.STOP
    full = serve(core, [CoreRequest(3, PROMPTS[1], 10**9)])[3]
    assert full[-1].finish in (Finish.LENGTH, Finish.EOS)
    assert len(PROMPTS[1]) + len(full) <= core.info.max_model_len


def test_end_tokens_of_both_config_files_end_a_choice(tmp_path: Path, serve: Serve) -> None:
    folder = make_model(tmp_path / "llama", "llama")
    plain = tokens(serve(new_core(folder), [CoreRequest(1, PROMPTS[2], 12)])[1])
    end = plain[5]
    (folder / "generation_config.json").write_text(f'{{"eos_token_id": [{end}, 4]}}')
    core = new_core(folder)
    assert core.eos_ids == {2, 4, end}
    events = serve(core, [CoreRequest(2, PROMPTS[2], 12)])[2]
    assert tokens(events) == plain[: plain.index(end) + 1]
    assert events[-1].finish is Finish.EOS
    ignoring = serve(core, [CoreRequest(3, PROMPTS[2], 12, ignore_eos=True)])[3]
    assert tokens(ignoring) == plain
    asked = CoreRequest(4, PROMPTS[2], 12, ignore_eos=True, stop_token_ids=(end,))
    assert serve(core, [asked])[4][-1].finish is Finish.STOP
    later = serve(core, [CoreRequest(5, PROMPTS[2], 12, min_new_tokens=12)])[5]
    assert len(later) == 12
    assert not {2, 4, end} & set(tokens(later)[:11])


def test_a_context_that_fills_up_ends_with_length(llama: Path, serve: Serve) -> None:
    core = new_core(llama, max_model_len=32)
    events = serve(core, [CoreRequest(1, PROMPTS[0][:1] * 31, 100, ignore_eos=True)])[1]
    assert [e.finish for e in events] == [Finish.LENGTH]
    many = serve(core, [CoreRequest(2, PROMPTS[0][:1] * 2, 100, ignore_eos=True)])[2]
    assert len(many) == 30


POISON: list[dict[str, Any]] = [
    {"prompt": ()},
    {"prompt": (VOCAB,)},
    {"prompt": (-1,)},
    {"prompt": (1,) * 10_000},
    {"temperature": math.nan},
    {"temperature": -1.0},
    {"temperature": math.inf},
    {"top_p": 0.0},
    {"top_p": math.nan},
    {"top_k": -7},
    {"min_p": 1.5},
    {"repetition_penalty": 0.0},
    {"max_new_tokens": 0},
    {"choices": 10**9},
    {"logprobs": 10**9},
    {"stop_token_ids": (10**12,)},
    {"stop_token_ids": tuple(range(VOCAB)) * 100},
]

HARSH: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 5e-324},
    {"temperature": 1e308},
    {"temperature": 1.0, "top_p": 5e-324},
    {"temperature": 1.0, "top_k": 10**15},
    {"temperature": 1.0, "min_p": 1.0},
    {"repetition_penalty": 1e308},
    {"repetition_penalty": 1e-308},
    {"presence_penalty": 1e308},
    {"frequency_penalty": -1e308},
    {"max_new_tokens": 10**15},
    {"min_new_tokens": 10, "stop_token_ids": tuple(range(VOCAB))},
    {"seed": 10**40, "temperature": 1.0},
]


def test_poison_is_refused_and_harsh_requests_harm_nobody(llama: Path, serve: Serve) -> None:
    core = new_core(llama, max_model_len=100)
    good = serve(core, [CoreRequest(1, PROMPTS[3], 20)])[1]
    for number, fields in enumerate(POISON):
        with pytest.raises(RequestError):
            core.add(CoreRequest(**{"id": 100 + number, "prompt": (5, 6), **fields}))
    assert not core.has_work
    requests = [
        CoreRequest(**{"id": 200 + i, "prompt": (5, 6), "max_new_tokens": 20, **fields})
        for i, fields in enumerate(HARSH)
    ]
    events = serve(core, [*requests, CoreRequest(2, PROMPTS[3], 20)])
    for request in requests:
        assert [e.finish is not None for e in events[request.id]][-1]
        assert sum(e.finish is not None for e in events[request.id]) == 1
    assert tokens(events[2]) == tokens(good)
    assert core.stats().kv_blocks_used == 0


@pytest.mark.parametrize("runtime", ["native", "transformers"])
def test_a_request_that_makes_the_model_give_nan_fails_alone(
    tmp_path: Path, serve: Serve, runtime: str
) -> None:
    folder = make_model(tmp_path / "llama", "llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        model.get_input_embeddings().weight[300] = torch.nan  # only this token is poison
    model.save_pretrained(folder)
    core = new_core(folder, runtime=runtime, kv_blocks=10)
    clean = [CoreRequest(i, tuple(t for t in PROMPTS[i] if t != 300), 20) for i in range(4)]
    want = {request.id: tokens(serve(core, [request])[request.id]) for request in clean}
    poison = [CoreRequest(10 + i, (5, 300, 7) * 10, 20, prompt_logprobs=True) for i in range(3)]
    events = serve(core, [*clean[:2], *poison, *clean[2:]])
    for request in poison:
        last = events[request.id][-1]
        assert len(events[request.id]) == 1
        assert last.finish is Finish.ERROR
        assert last.detail is not None
        assert last.detail.error is not None
        assert type(last.detail.error.exception()) is EngineError
    assert {request.id: tokens(events[request.id]) for request in clean} == want
    # The blocks that held NaN are used again, also by their masked parts.
    again = serve(core, clean)
    assert {request.id: tokens(again[request.id]) for request in clean} == want


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (RuntimeError("a kernel broke"), EngineError),
        (torch.OutOfMemoryError("no room"), OutOfMemory),
        (MemoryError(), OutOfMemory),
    ],
)
def test_a_step_that_fails_ends_its_requests_only(
    llama: Path, serve: Serve, raised: BaseException, expected: type[Exception]
) -> None:
    core = new_core(llama, max_batch=2)
    want = tokens(serve(core, [CoreRequest(1, PROMPTS[0], 10)])[1])
    model = core._runner._model

    def fail(batch: object) -> None:
        del model.logits
        raise raised

    model.logits = fail
    events = serve(core, [CoreRequest(i, PROMPTS[0], 10) for i in (2, 3, 4)])
    for number in (2, 3):
        (event,) = events[number]
        assert event.finish is Finish.ERROR
        assert event.detail is not None
        assert event.detail.error is not None
        assert type(event.detail.error.exception()) is expected
    assert tokens(events[4]) == want
    assert core.stats().kv_blocks_used == 0


def test_cancel_ends_every_choice_within_a_step(llama: Path) -> None:
    core = new_core(llama, max_batch=2)
    core.add(CoreRequest(1, PROMPTS[0], 50, choices=3))
    core.add(CoreRequest(2, PROMPTS[1], 5))
    core.step()
    core.cancel(1)
    core.cancel(1)
    core.cancel(77)
    events = core.step()
    ended = [(e.request_id, e.choice) for e in events if e.finish is Finish.CANCELLED]
    assert ended == [(1, 0), (1, 1), (1, 2)]
    while core.has_work:
        assert all(e.request_id == 2 for e in core.step())
    core.cancel(2)
    assert core.step() == []
    assert core.stats().kv_blocks_used == 0


def test_the_news_of_a_cancel_comes_even_when_nothing_else_runs(llama: Path) -> None:
    core = new_core(llama)
    core.add(CoreRequest(1, PROMPTS[0], 5))
    core.cancel(1)
    assert core.has_work
    assert [e.finish for e in core.step()] == [Finish.CANCELLED]
    assert not core.has_work


def test_an_id_in_use_is_refused(llama: Path) -> None:
    core = new_core(llama)
    core.add(CoreRequest(1, PROMPTS[0]))
    with pytest.raises(EngineError, match="id 1 is in use"):
        core.add(CoreRequest(1, PROMPTS[1]))


def test_the_info_says_what_was_decided(llama: Path) -> None:
    core = new_core(llama, kv_blocks=10)
    details = dict(core.info.details)
    assert (core.info.max_model_len, core.info.vocab_size) == (160, VOCAB)
    assert "of 256" in details["context"]
    assert details["dtype"] == "float32"
    core.close()
    core.close()
