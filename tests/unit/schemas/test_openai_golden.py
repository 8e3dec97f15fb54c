"""The recorded bytes of chat and completions. A difference is a change that users' clients see."""

from __future__ import annotations

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from tests.unit.schemas.openai_cases import CASES, FOLDER, ORIGINS, Case, answer

KINDS = {
    ".json": "application/json",
    ".jsonlines": "application/jsonlines",
    ".sse": "text/event-stream",
}


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_answer_has_the_recorded_bytes_and_content_type(origin: str, case: Case) -> None:
    recorded = list((FOLDER / origin).glob(f"{case.name}.*"))
    assert len(recorded) == 1
    parsed = case.read(origin)
    assert answer(parsed, case.deltas, origin == "v1") == recorded[0].read_bytes()
    assert parsed.content_type == KINDS[recorded[0].suffix]


def test_every_recorded_file_belongs_to_a_case() -> None:
    names = {case.name for case in CASES}
    for origin in ORIGINS:
        assert {path.stem for path in (FOLDER / origin).iterdir()} == names


# A prompt's first token has no probability, which OpenAI's API says with a null that its classes
# don't foresee.
STRICT = [case for case in CASES if not case.name.startswith("text-echo-logprobs")]


@pytest.mark.parametrize("case", STRICT, ids=lambda case: case.name)
def test_openais_own_classes_read_every_answer(case: Case) -> None:
    data = answer(case.read("v1"), case.deltas, True)
    if data.startswith(b"HTTP"):
        return
    kind: type[BaseModel] = ChatCompletion if case.chat else Completion
    if not case.stream:
        kind.model_validate_json(data, strict=True)
        return
    *events, done, rest = data.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    chunk: type[BaseModel] = ChatCompletionChunk if case.chat else Completion
    for event in events:
        body = event.removeprefix("data: ")
        if '"error"' not in body and case.chat:
            chunk.model_validate_json(body, strict=True)
