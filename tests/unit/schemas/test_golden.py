"""The recorded bytes of every form. A difference is a change that users' clients will see."""

from __future__ import annotations

import pytest

from lmi.schemas import parse
from tests.unit.schemas.golden_cases import CASES, FOLDER, FORMS, Case, answer


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_answer_has_the_recorded_bytes_and_content_type(form: str, case: Case) -> None:
    recorded = list((FOLDER / form).glob(f"{case.name}.*"))
    assert len(recorded) == 1
    parsed = parse(case.body(), {}, FORMS[form])
    assert answer(parsed, case.deltas) == recorded[0].read_bytes()
    kinds = {".json": "application/json", ".jsonlines": "application/jsonlines"}
    kinds |= {".sse": "text/event-stream", ".plain": "text/plain"}
    assert parsed.content_type == kinds[recorded[0].suffix]


def test_every_recorded_file_belongs_to_a_case() -> None:
    names = {case.name for case in CASES}
    for form in FORMS:
        assert {path.stem for path in (FOLDER / form).iterdir()} == names
