"""vLLM keeps the contract of `lmi.core` behind our worker."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from lmi.core import Engine, Sampling
from tests.contract.subject import Subject
from tests.contract.suite import CHECKS, Check
from tests.contract.vllm_subject import vllm_subject, write_vllm_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return vllm_subject(write_vllm_model(tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="module")
def engine(subject: Subject) -> Iterator[Engine]:
    """One engine for all checks but those that end one: loading takes seconds."""
    with subject.engine() as engine:
        yield engine


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_vllm_keeps_the_contract(subject: Subject, engine: Engine, check: Check) -> None:
    check(subject, engine)


def test_the_likeliest_prompt_tokens_come_with_the_prompt(subject: Subject, engine: Engine) -> None:
    observer = subject.observe(engine)
    prompt = subject.prompt(9)
    wide = observer.submit(prompt, Sampling(max_new_tokens=1, prompt_logprobs=True, prompt_top=3))
    narrow = observer.submit(prompt, Sampling(max_new_tokens=1, prompt_logprobs=True))
    observer.until_over(wide)
    observer.until_over(narrow)
    assert tuple(token.id for token in wide.reply.prompt) == prompt
    assert wide.reply.prompt[0].top == ()
    for token, other in zip(wide.reply.prompt[1:], narrow.reply.prompt[1:], strict=True):
        ranked = [top.logprob for top in token.top]
        assert len(ranked) == 3
        assert ranked == sorted(ranked, reverse=True)
        assert token.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert other.top == ()
