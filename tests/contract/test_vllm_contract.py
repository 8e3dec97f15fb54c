"""vLLM keeps the contract of `lmi.core` behind our worker."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from lmi.core import Engine
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
