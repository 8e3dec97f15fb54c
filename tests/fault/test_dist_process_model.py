"""LMI-Dist's process engine with a real (tiny) model."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from lmi.core import EngineDead, Finish, GenerationRequest, ModelError, Sampling
from lmi.dist import DistConfig, Engine, ProcessEngine
from tests.support.drive import Answers, Said, drive, take
from tests.support.models import VOCAB, make_model
from tests.support.trained_tokenizers import add_bos, byte_level

pytestmark = pytest.mark.slow

WORDS = ["The quick brown fox", "def main():\n", "色は匂へど", "Emoji: 😀", "x", "Deich."]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DistConfig:
    """A random Llama with a tokenizer, a small cache and small chunks: preempted and chunked."""
    folder = make_model(tmp_path_factory.mktemp("model") / "llama", "llama")
    tokenizer = add_bos(byte_level(vocab_size=VOCAB - 8))
    tokenizer.save(str(folder / "tokenizer.json"))
    return DistConfig(
        folder, dtype="float32", max_batch=6, prefill_tokens=24, block_size=4, kv_blocks=48,
        max_model_len=128, threads=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def process(config: DistConfig) -> Iterator[ProcessEngine]:
    with closing(ProcessEngine.load(config)) as engine:
        yield engine


def mixed_requests(count: int, first_id: int) -> list[GenerationRequest]:
    rng = random.Random(21)
    requests = []
    for n in range(count):
        prompt: str | tuple[int, ...] = rng.choice(WORDS)
        if rng.random() < 0.5:
            prompt = tuple(rng.choices(range(3, VOCAB), k=rng.randrange(1, 60)))
        sampled = rng.random() < 0.5
        sampling = Sampling(
            max_new_tokens=rng.randrange(1, 40),
            temperature=0.8 if sampled else 0.0,
            top_k=20 if sampled else 0,
            seed=n,
            stop=tuple(rng.choices(["a", "e ", "in", "日", "\ufffd"], k=rng.choice([0, 0, 1, 2]))),
            include_stop_text=rng.random() < 0.5,
            logprobs=rng.choice([None, None, 0, 2]),
            prompt_logprobs=rng.random() < 0.2,
            n=rng.choice([1, 1, 1, 2]),
            best_of=rng.choice([1, 1, 1, 3]),
        )
        requests.append(GenerationRequest(first_id + n, prompt, sampling))
    return requests


def same(here: Said, there: Said) -> None:
    assert there.ids == here.ids
    assert there.text == here.text
    assert (there.finish, there.usage) == (here.finish, here.usage)
    assert [t.logprob for t in there.tokens] == pytest.approx(
        [t.logprob for t in here.tokens], abs=1e-4
    )
    assert len(there.prompt) == len(here.prompt)


def test_200_mixed_requests_with_cancels_say_what_they_say_here(
    config: DistConfig, process: ProcessEngine
) -> None:
    requests = mixed_requests(200, first_id=1)
    with closing(Engine.load(config)) as engine:
        here = drive(engine, requests)
    rng = random.Random(22)
    victims = set(rng.sample(range(1, 201), 40))

    def cancel(answers: Answers) -> None:
        for request_id in list(victims):
            if rng.random() < 0.05:
                process.cancel(request_id)
                victims.remove(request_id)

    there = drive(process, requests, each_poll=cancel)
    cancelled = [key for key, said in there.items() if said.finish is Finish.CANCELLED]
    assert len(cancelled) >= 5
    assert process.stats().preemptions > 0
    for key, said in there.items():
        if key not in cancelled:
            same(here[key], said)
        elif requests[key[0] - 1].sampling.best_of == 1:
            assert said.ids == here[key].ids[: len(said.ids)]
            assert here[key].text.startswith(said.text)
    finishes = {said.finish for said in there.values()}
    assert finishes >= {Finish.LENGTH, Finish.STOP, Finish.CANCELLED}
    _empties(process)


def _empties(process: ProcessEngine) -> None:
    """Nothing is left in the cache when all is said."""
    (last,) = drive(process, [GenerationRequest(10_000, "x", Sampling(max_new_tokens=1))]).values()
    assert last.finish is not None
    process.poll(0.2)
    stats = process.stats()
    assert (stats.running, stats.waiting, stats.kv_blocks_used) == (0, 0, 0)


def test_a_folder_that_is_no_model_is_a_model_error(config: DistConfig, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((config.model / "tokenizer.json").read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "llama"')
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(ModelError, match=r"config\.json"):
        ProcessEngine.load(DistConfig(tmp_path))
    assert {child.pid for child in psutil.Process().children()} <= before


def _take_all(engine: ProcessEngine, answers: Answers) -> None:
    """Take what still comes, until the engine says that it is dead."""
    while True:
        take(answers, engine.poll(10))


def test_a_model_killed_mid_stream_had_said_what_its_successor_says(
    config: DistConfig,
) -> None:
    requests = [
        GenerationRequest(n, f"The quick {n}", Sampling(max_new_tokens=80, ignore_eos=True))
        for n in range(1, 7)
    ]
    before: Answers = defaultdict(Said)
    with closing(ProcessEngine.load(config)) as engine:
        for request in requests:
            engine.submit(request)
        while len(before) < len(requests):
            take(before, engine.poll(10))
        psutil.Process(engine.pid).kill()
        with pytest.raises(EngineDead, match="SIGKILL"):
            _take_all(engine, before)
    with closing(Engine.load(config)) as engine:
        after = drive(engine, requests)
    for key, said in before.items():
        assert said.ids == after[key].ids[: len(said.ids)]
        assert after[key].text.startswith(said.text)
