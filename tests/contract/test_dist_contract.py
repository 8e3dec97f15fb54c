"""LMI-Dist keeps the contract of `lmi.core`: in this process, with shared blocks and guesses, in a
process of its own, and where it falls back on padded batches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lmi.core import Engine
from tests.contract.dist_subjects import dist_subject, write_model
from tests.contract.subject import Subject
from tests.contract.suite import CHECKS, Check

# On a busy machine each of several starts takes a minute.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=["in process", "sharing", "own process", "fallback"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return dist_subject(request.param, write_model(tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="module")
def engine(subject: Subject) -> Iterator[Engine]:
    """One engine for all checks: loading takes seconds, and each check leaves it idle."""
    with subject.engine() as engine:
        yield engine


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_lmi_dist_keeps_the_contract(subject: Subject, engine: Engine, check: Check) -> None:
    check(subject, engine)
