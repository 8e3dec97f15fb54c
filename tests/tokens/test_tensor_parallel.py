"""Two ranks say in float32 what one rank says, and what transformers.generate says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil
import pytest
import torch

from lmi.core import ConfigError, EngineDead, Finish, GenerationRequest, Sampling
from lmi.dist import DistConfig, Engine, ProcessEngine
from lmi.dist.collectives.process_group import ProcessGroup
from lmi.dist.core import EngineCore
from lmi.dist.cores import available_cores
from lmi.dist.messages import CoreRequest
from lmi.dist.place import Place
from lmi.dist.plan import Plan
from tests.support.drive import Answers, drive
from tests.support.models import VOCAB, make_model
from tests.support.trained_tokenizers import add_bos, byte_level
from tests.tokens.conftest import PROMPTS, GetReference, Reference

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(available_cores() < 2, reason="two ranks need two cores"),
]

NEW_TOKENS: Final = 24
FURTHER: Final = 60  # requests of all kinds beside the greedy ones


class Way(NamedTuple):
    """How two ranks may be run; each family is run in one of the ways."""

    family: str
    options: dict[str, Any]


WAYS: Final = [
    Way("llama", {}),
    Way("mistral", {"custom_all_reduce": False}),
    Way("qwen2", {"kernels": "plain"}),
    Way("mixtral", {"prefix_cache": True, "speculative_tokens": 3}),
    Way("gemma", {}),  # by transformers, divided by its plan
]


def config_of(folder: Path, **options: Any) -> DistConfig:
    """Few KV blocks and small chunks: prompts are cut, and choices preempted."""
    (folder / "tokenizer.json").write_text(add_bos(byte_level(vocab_size=VOCAB - 8)).to_str())
    config = DistConfig(
        folder,
        dtype="float32",
        device="cpu",
        max_model_len=192,
        max_batch=6,
        prefill_tokens=40,
        block_size=4,
        kv_blocks=110,
        threads=1,
    )
    return replace(config, **options)


def requests_of(reference: Reference) -> list[GenerationRequest]:
    """The reference's prompts, greedy, and others of all kinds behind them."""
    rng = random.Random(5)
    greedy = Sampling(max_new_tokens=reference.new_tokens)
    requests = [GenerationRequest(n, prompt, greedy) for n, prompt in enumerate(PROMPTS, 1)]
    for n in range(FURTHER):
        sampling = Sampling(
            max_new_tokens=rng.randrange(1, 40),
            temperature=rng.choice([0.0, 0.8, 1.2]),
            top_k=rng.choice([0, 20]),
            top_p=rng.choice([1.0, 0.9]),
            repetition_penalty=rng.choice([1.0, 1.2]),
            seed=n,
            logprobs=rng.choice([None, 2]),
            n=rng.choice([1, 1, 2]),
            stop=rng.choice([(), (), ("e",)]),
        )
        prompt = tuple(rng.choices(range(3, VOCAB), k=rng.randrange(1, 90)))
        requests.append(GenerationRequest(1000 + n, prompt, sampling))
    return requests


def ids_of(answers: Answers) -> dict[tuple[int, int], list[int]]:
    return {key: said.ids for key, said in answers.items()}


def the_ranks_compute_with_the_same_tokens(engine: ProcessEngine) -> None:
    """Whatever chance gave without a seed, it is as likely as rank 0 said when it chose it."""
    chance = Sampling(max_new_tokens=20, temperature=1.5, ignore_eos=True, logprobs=0)
    prompt = (5, 6, 7)
    said = drive(engine, [GenerationRequest(5000, prompt, chance)])[5000, 0]
    again = Sampling(max_new_tokens=1, prompt_logprobs=True)
    read = drive(engine, [GenerationRequest(5001, (*prompt, *said.ids), again)])[5001, 0]
    assert [token.logprob for token in said.tokens] == pytest.approx(
        [token.logprob for token in read.prompt[len(prompt) :]], abs=1e-3
    )


@contextmanager
def ranks(config: DistConfig, *, mpirun: bool = False) -> Iterator[ProcessEngine]:
    """An engine whose processes are all gone in the end."""
    with closing(ProcessEngine.load(config, mpirun=mpirun)) as engine:
        processes = [psutil.Process(pid) for pid in engine.pids]
        assert len(processes) == config.tensor_parallel
        yield engine
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.family)
def test_two_ranks_say_what_one_rank_and_generate_say(way: Way, reference: GetReference) -> None:
    expected = reference(way.family, NEW_TOKENS)
    config = config_of(expected.folder, **way.options)
    requests = requests_of(expected)
    with closing(Engine.load(config)) as engine:
        alone = drive(engine, requests)
    rng = random.Random(6)
    victims = set(rng.sample(range(1000, 1000 + FURTHER), 12))

    with ranks(replace(config, tensor_parallel=2)) as engine:

        def cancel(answers: Answers) -> None:
            for request_id in [v for v in sorted(victims) if answers[v, 0].tokens]:
                engine.cancel(request_id)
                victims.remove(request_id)

        together = drive(engine, requests, each_poll=cancel)
        assert engine.stats().preemptions > 0
        the_ranks_compute_with_the_same_tokens(engine)
        assert engine.stats().running == engine.stats().waiting == 0
        if not config.prefix_cache:
            assert engine.stats().kv_blocks_used == 0

    for n, answer in enumerate(expected.answers, 1):
        assert together[n, 0].ids == answer
    cancelled = {key for key, said in together.items() if said.finish is Finish.CANCELLED}
    assert cancelled
    for key, said in together.items():
        want = alone[key]
        if key in cancelled:
            assert said.ids == want.ids[: len(said.ids)]
            continue
        assert said.ids == want.ids
        assert said.finish is want.finish
        assert [token.logprob for token in said.tokens] == pytest.approx(
            [token.logprob for token in want.tokens], abs=1e-4
        )


def test_a_killed_rank_of_a_model_is_named_and_the_next_load_works_until_one_hangs(
    reference: GetReference,
) -> None:
    expected = reference("llama", NEW_TOKENS)
    config = config_of(expected.folder, tensor_parallel=2, collective_timeout=4.0)
    before: dict[tuple[int, int], list[int]] = {}
    endless = Sampling(max_new_tokens=150, ignore_eos=True)
    requests = [GenerationRequest(n, PROMPTS[n], endless) for n in range(1, 4)]
    with ranks(config) as engine:
        victim = psutil.Process(engine.pids[1])

        def kill(answers: Answers) -> None:
            before.update(ids_of(answers))
            if sum(map(len, before.values())) > 20 and victim.is_running():
                victim.kill()

        with pytest.raises(EngineDead, match=r"rank 1 of 2 \(process \d+\) was killed by SIGKILL"):
            drive(engine, requests, each_poll=kill)
    with ranks(config) as engine:
        after = ids_of(drive(engine, requests))
        processes = [psutil.Process(pid) for pid in engine.pids]
        used = [sum(process.cpu_times()[:2]) for process in processes]
        assert engine.poll(6.0) == []  # longer than a hung rank would be given
        for process, before_ in zip(processes, used, strict=True):
            assert sum(process.cpu_times()[:2]) - before_ < 0.3
        assert ids_of(drive(engine, requests[:1])) == {(1, 0): after[1, 0]}
        processes[1].suspend()
        with pytest.raises(EngineDead, match=r"rank 1 \(process \d+\)"):
            drive(engine, requests)
    assert len(before) == len(requests)
    for key, ids in before.items():
        assert ids == after[key][: len(ids)]


def test_a_model_that_can_not_be_divided_is_refused_before_its_weights_are_read(
    tmp_path: Path,
) -> None:
    folder = make_model(tmp_path / "gpt2", "gpt2")
    (folder / "model.safetensors").write_bytes(b"never read")
    config = config_of(folder, tensor_parallel=2)
    with pytest.raises(ConfigError, match="no plan to divide a model of type gpt2; expected 1"):
        ProcessEngine.load(config)


def test_a_step_that_fails_on_one_rank_ends_all_of_them(
    reference: GetReference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others may have come through: answers that go on would be those of nobody."""
    config = config_of(reference("llama", NEW_TOKENS).folder)
    place = Place(0, 1, f"file://{tmp_path}/meeting")
    collective = ProcessGroup(place, torch.device("cpu"), 10.0)
    core = EngineCore(config, collective=collective)

    def fail(plan: Plan) -> torch.Tensor:
        raise MemoryError("no more of it")

    core.add(CoreRequest(1, (5, 6, 7)))
    monkeypatch.setattr(core._runner, "run", fail)
    with pytest.raises(EngineDead, match="out of memory: no more of it"):
        core.step()
    core.close()
    collective.close()
