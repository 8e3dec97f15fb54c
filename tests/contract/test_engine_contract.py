"""Every engine keeps the contract of `lmi.core`."""

from __future__ import annotations

import pytest

from tests.contract.subject import Subject
from tests.contract.subjects import SCRIPTED
from tests.contract.suite import CHECKS, Check


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("subject", SCRIPTED, ids=str)
def test_a_scripted_engine_keeps_the_contract(subject: Subject, check: Check) -> None:
    with subject.engine() as engine:
        check(subject, engine)
