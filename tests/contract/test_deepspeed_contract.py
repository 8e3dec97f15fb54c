"""DeepSpeed keeps the contract of `lmi.core` under LMI-Dist's scheduler, on two ranks."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from lmi.core import Engine
from lmi.dist.cores import available_cores
from tests.contract.deepspeed_subject import deepspeed_subject
from tests.contract.dist_subjects import write_model
from tests.contract.subject import Subject
from tests.contract.suite import CHECKS, Check

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed"),
    pytest.mark.skipif(available_cores() < 2, reason="two ranks need two cores"),
]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return deepspeed_subject(write_model(tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="module")
def engine(subject: Subject) -> Iterator[Engine]:
    """One engine for all checks but those that end one: loading takes seconds."""
    with subject.engine() as engine:
        yield engine


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_deepspeed_keeps_the_contract(subject: Subject, engine: Engine, check: Check) -> None:
    check(subject, engine)
