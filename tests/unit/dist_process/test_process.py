"""The engine over a worker process, with a core that needs no model."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from lmi.core import (
    BadPayload,
    ConfigError,
    EngineDead,
    EngineInfo,
    Finish,
    GenerationRequest,
    LmiError,
    ModelError,
    Sampling,
)
from lmi.dist import DistConfig, Engine, ProcessEngine
from lmi.text import Tokenizer
from tests.support.drive import PATIENCE_SECONDS, Answers, Said, drive, take
from tests.support.scripted_core import MAX_MODEL_LEN, POISON, REFUSED, VOCAB, ScriptedCore

pytestmark = pytest.mark.slow

CORE = "tests.support.scripted_core:ScriptedCore"


def start(folder: Path, **script: Any) -> ProcessEngine:
    (folder / "script.json").write_text(json.dumps(script))
    return ProcessEngine.load(DistConfig(folder), core=CORE)


@pytest.fixture
def process(folder: Path) -> Iterator[ProcessEngine]:
    with closing(start(folder)) as engine:
        yield engine


def mixed_requests(count: int, seed: int) -> list[GenerationRequest]:
    """All kinds of requests that the scripted core can serve."""
    rng = random.Random(seed)
    requests = []
    for n in range(count):
        prompt: str | tuple[int, ...] = tuple(rng.choices(range(9, VOCAB), k=rng.randrange(1, 40)))
        if rng.random() < 0.3:
            prompt = rng.choice(["The quick brown fox", "色は匂へど", "😀", "def main():\n"])
        elif rng.random() < 0.1:
            prompt = (POISON, n)
        sampling = Sampling(
            max_new_tokens=rng.randrange(1, 80),
            min_new_tokens=rng.choice([0, 0, 1]),
            ignore_eos=rng.random() < 0.3,
            stop=tuple(rng.choices(["a", "e ", "in", "the", "日", "\ufffd"], k=rng.randrange(3))),
            stop_token_ids=tuple(rng.choices(range(9, VOCAB), k=rng.randrange(3))),
            include_stop_text=rng.random() < 0.5,
            skip_special_tokens=rng.random() < 0.5,
            logprobs=rng.choice([None, None, 0, 3]),
            prompt_logprobs=rng.random() < 0.2,
            n=rng.choice([1, 1, 1, 2, 3]),
            best_of=rng.choice([1, 1, 1, 4]),
        )
        requests.append(GenerationRequest(n + 1, prompt, sampling))
    return requests


def comparable(answers: Answers) -> dict[tuple[int, int], Any]:
    """Answers with errors as text: two processes never have the same exception."""
    return {
        key: (said.tokens, said.finish, said.usage, str(said.error), said.prompt)
        for key, said in answers.items()
    }


def test_a_worker_says_what_the_same_core_says_here(
    process: ProcessEngine, core: ScriptedCore, tokenizer: Tokenizer
) -> None:
    requests = mixed_requests(200, seed=4)
    here = drive(Engine(core, tokenizer), requests)
    assert comparable(drive(process, requests)) == comparable(here)
    assert {Finish.EOS, Finish.LENGTH, Finish.STOP, Finish.ERROR} <= {
        said.finish for said in here.values()
    }


def test_info_comes_from_the_worker(process: ProcessEngine, folder: Path) -> None:
    expected = EngineInfo("scripted", folder.name, MAX_MODEL_LEN, VOCAB, 32, (("a", "b"),))
    assert process.info == expected
    assert process.pid is not None
    assert psutil.pid_exists(process.pid)


def test_progress_is_told_in_order_by_the_callers_thread(folder: Path) -> None:
    told: list[tuple[Any, ...]] = []

    def progress(*what: Any) -> None:
        told.append((*what, threading.current_thread()))

    here = threading.current_thread()
    with closing(ProcessEngine.load(DistConfig(folder), progress, core=CORE)):
        assert told == [("weights", done, 2, here) for done in (0, 1, 2)]


def test_a_refusal_of_the_core_is_an_error_of_its_request(process: ProcessEngine) -> None:
    request = GenerationRequest(1, (REFUSED, 1), Sampling(n=2))
    answers = drive(process, [request, GenerationRequest(2, (50,), Sampling(max_new_tokens=4))])
    for choice in (0, 1):
        assert isinstance(answers[1, choice].error, BadPayload)
    assert len(answers[2, 0].tokens) == 4


def test_a_refusal_of_the_front_is_raised_at_once(process: ProcessEngine) -> None:
    with pytest.raises(BadPayload):
        process.submit(GenerationRequest(1, (50,), Sampling(temperature=-1.0)))
    assert process.poll(0) == []


def test_counts_without_a_limit_reach_the_worker(process: ProcessEngine) -> None:
    sampling = Sampling(max_new_tokens=10**30, top_k=10**30, seed=2**64 - 1)
    said = drive_one(process, GenerationRequest(1, (50,), sampling))
    assert said.finish is Finish.EOS


def test_cancel_takes_effect_within_a_step(folder: Path) -> None:
    with closing(start(folder, step_seconds=0.02)) as engine:
        request = GenerationRequest(1, (50,), Sampling(max_new_tokens=4000, ignore_eos=True))
        cancelled_at: list[int] = []

        def cancel(answers: Answers) -> None:
            if not cancelled_at and answers[1, 0].tokens:
                engine.cancel(1)
                cancelled_at.append(len(answers[1, 0].tokens))

        said = drive(engine, [request], each_poll=cancel)[1, 0]
        assert said.finish is Finish.CANCELLED
        assert len(said.tokens) <= cancelled_at[0] + 2  # one on its way, one being made
        engine.cancel(1)
        engine.cancel(5)
        assert engine.poll(0) == []


def test_a_stop_string_frees_the_place_in_the_core(folder: Path) -> None:
    with closing(start(folder, step_seconds=0.001)) as engine:
        sampling = Sampling(max_new_tokens=4000, ignore_eos=True)
        text = ""
        engine.submit(GenerationRequest(1, (50,), sampling))
        while len(text) < 30:
            text += "".join([delta.text for delta in engine.poll(1)])
        engine.cancel(1)
        stopped = GenerationRequest(
            2, (50,), Sampling(max_new_tokens=4000, ignore_eos=True, stop=(text[10:20],))
        )
        said = drive_one(engine, stopped)
        assert said.finish is Finish.STOP
        assert said.text == text[: text.index(text[10:20])]
        until = time.monotonic() + PATIENCE_SECONDS
        while engine.stats().running and time.monotonic() < until:
            assert engine.poll(0.05) == []
        assert engine.stats().running == 0
        assert engine.stats().kv_blocks_total == 99


def drive_one(engine: ProcessEngine, request: GenerationRequest) -> Said:
    """Drive one request, whatever else still ends."""
    engine.submit(request)
    answers: Answers = defaultdict(Said)
    until = time.monotonic() + PATIENCE_SECONDS
    while answers[request.id, 0].finish is None:
        assert time.monotonic() < until
        take(answers, engine.poll(1))
    return answers[request.id, 0]


def test_wake_is_called_for_each_frame_and_poll_needs_no_waiting(folder: Path) -> None:
    with closing(start(folder, step_seconds=0.01)) as engine:
        news = threading.Event()
        engine.on_ready(news.set)
        engine.submit(GenerationRequest(1, (50,), Sampling(max_new_tokens=20, ignore_eos=True)))
        tokens = 0
        while tokens < 20:
            assert news.wait(PATIENCE_SECONDS)
            news.clear()
            tokens += sum(len(delta.tokens) for delta in engine.poll(0))


def test_an_idle_worker_uses_no_processor(process: ProcessEngine) -> None:
    drive(process, [GenerationRequest(1, (50,), Sampling(max_new_tokens=3))])
    worker = psutil.Process(process.pid)
    before = worker.cpu_times()
    assert process.poll(0.5) == []
    after = worker.cpu_times()
    assert after.user + after.system - before.user - before.system < 0.05
    assert process.last_step_age() > 0.4


def test_poll_waits_as_long_as_asked_and_no_longer(process: ProcessEngine) -> None:
    begin = time.monotonic()
    assert process.poll(0) == []
    assert process.poll(0.2) == []
    assert 0.2 <= time.monotonic() - begin < 5


def test_close_ends_the_worker_and_may_be_repeated(folder: Path) -> None:
    engine = start(folder)
    worker = psutil.Process(engine.pid)
    engine.submit(GenerationRequest(1, (50,), Sampling(max_new_tokens=4000, ignore_eos=True)))
    engine.close()
    engine.close()
    assert not worker.is_running()
    with pytest.raises(EngineDead, match="closed"):
        engine.poll(0)


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("ModelError", ModelError, "these weights are corrupt"),
        ("ConfigError", ConfigError, "expected float32"),
        ("bug", EngineDead, "RuntimeError: an unforeseen thing"),
        ("die", EngineDead, "ended with exit code 3 while it loaded"),
    ],
)
def test_a_failure_to_load_is_told_as_it_was_there(
    folder: Path, how: str, error: type[LmiError], words: str
) -> None:
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(error, match=words):
        start(folder, load=how)
    assert {child.pid for child in psutil.Process().children()} <= before


def test_a_load_without_end_is_given_up(folder: Path) -> None:
    (folder / "script.json").write_text('{"load": "hang"}')
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(EngineDead, match=r"not loaded its model within 0\.5 s"):
        ProcessEngine.load(DistConfig(folder), core=CORE, seconds=0.5)
    assert {child.pid for child in psutil.Process().children()} <= before


def test_a_folder_without_tokenizer_leaves_no_worker(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("garbage")
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        start(folder)
    assert {child.pid for child in psutil.Process().children()} <= before
