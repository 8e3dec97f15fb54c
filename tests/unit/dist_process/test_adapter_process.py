"""Another library's core in our worker, and the adapters that it serves."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from lmi.core import (
    OPTIONAL,
    Adapter,
    AdapterHost,
    BadPayload,
    EngineDead,
    GenerationRequest,
    Grammar,
    OutOfMemory,
    Sampling,
    UnknownAdapter,
)
from lmi.dist import Engine, ProcessEngine
from lmi.dist.adapter_process import AdapterProcessEngine
from lmi.dist.foreign import ForeignConfig
from tests.support.scripted_adapters import DEADLY, FULL

pytestmark = pytest.mark.slow

CORE = "tests.support.scripted_adapters:make_core"
PATIENCE_SECONDS = 20.0
ADAPTER = Adapter("a", Path("/adapters/a"))


@pytest.fixture
def foreign(folder: Path) -> ForeignConfig:
    return ForeignConfig("Scripted", folder, {"phase": "thinking"}, {"SCRIPTED": "yes"})


@pytest.fixture
def host(foreign: ForeignConfig) -> Iterator[AdapterProcessEngine]:
    engine = AdapterProcessEngine.load_foreign(foreign, CORE)
    yield engine
    engine.close()


def settle(engine: AdapterProcessEngine, answer: Future[None]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not answer.done():
        assert time.monotonic() < until
        engine.poll(0.02)
    answer.result()


def ask(adapter: str | None = None, number: int = 1) -> GenerationRequest:
    return GenerationRequest(number, (20, 30), Sampling(max_new_tokens=2), adapter=adapter)


def test_a_foreign_core_is_told_its_arguments_and_its_environment(foreign: ForeignConfig) -> None:
    phases: list[tuple[str, int, int]] = []
    engine = ProcessEngine.load_foreign(foreign, CORE, lambda *phase: phases.append(phase))
    assert ("thinking", 1, 1) in phases
    assert "SCRIPTED" not in os.environ
    assert not isinstance(engine, AdapterHost)
    engine.close()
    with pytest.raises(EngineDead, match="Scripted is closed"):
        engine.poll(0)


def test_an_adapter_serves_from_the_workers_answer_on(host: AdapterProcessEngine) -> None:
    assert isinstance(host, AdapterHost)
    answer = host.register_adapter(ADAPTER)
    with pytest.raises(UnknownAdapter, match="registered: none"):
        host.submit(ask("a"))
    settle(host, answer)
    assert host.adapters() == {"a": ADAPTER}
    host.submit(ask("a"))
    forgotten = host.unregister_adapter("a")
    with pytest.raises(UnknownAdapter):
        host.submit(ask("a", 2))
    settle(host, forgotten)
    assert host.adapters() == {}


def test_what_the_core_refuses_fails_the_future_by_its_class(host: AdapterProcessEngine) -> None:
    with pytest.raises(OutOfMemory, match="no slot is left"):
        settle(host, host.register_adapter(Adapter(FULL, Path("/x"))))
    with pytest.raises(UnknownAdapter):
        settle(host, host.unregister_adapter("nobody"))
    assert host.adapters() == {}


def test_a_death_fails_what_was_asked_before_and_after(host: AdapterProcessEngine) -> None:
    answer = host.register_adapter(Adapter(DEADLY, Path("/x")))
    with pytest.raises(EngineDead, match="Scripted's worker"):
        host.poll(PATIENCE_SECONDS)
    for late in (answer, host.register_adapter(ADAPTER), host.unregister_adapter("a")):
        with pytest.raises(EngineDead):
            late.result(timeout=0)


def test_closing_fails_what_was_asked(host: AdapterProcessEngine) -> None:
    answer = host.register_adapter(ADAPTER)
    host.close()
    with pytest.raises(EngineDead):
        answer.result(timeout=0)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(prompt_logprobs=True, prompt_top=2),
        Sampling(grammar=Grammar("json_object")),
        Sampling(logit_bias=((1, 2.0),)),
        Sampling(allowed_token_ids=(1,)),
        Sampling(bad_words=("a",)),
    ],
    ids=OPTIONAL,
)
def test_a_core_that_lacks_something_refuses_it_by_name(engine: Engine, sampling: Sampling) -> None:
    (name,) = [name for name in OPTIONAL if getattr(sampling, name)]
    with pytest.raises(BadPayload, match=f"{name}: scripted has nothing like it") as refused:
        engine.submit(GenerationRequest(1, (20, 30), sampling))
    assert refused.value.field == name


def test_a_text_with_its_special_tokens_gets_no_more(engine: Engine) -> None:
    counts = []
    for number, add in enumerate((True, False), start=1):
        sampling = Sampling(max_new_tokens=1, ignore_eos=True)
        engine.submit(GenerationRequest(number, "ab", sampling, add_special_tokens=add))
        usage = engine.poll(1.0)[0].usage
        assert usage is not None
        counts.append(usage.prompt_tokens)
    assert counts[0] == counts[1] + 1  # the tokenizer begins with <s>
