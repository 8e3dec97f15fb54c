"""One suite of requests through DJL's real Java classes and through our own server: equal answers.

A JVM and a server are started once for each mode and each model, and asked all of the suite.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.java_build import Unavailable, build
from tests.support.java_driver import Answer, JavaDriver
from tests.support.java_folders import demo_folder, echo_folder, engine_cache
from tests.support.request_suite import CASES, JSON, Case
from tests.support.serving import Serving, serving

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Mode:
    """How Java drives the worker. options: of the model, for both fronts."""

    version: str
    options: Mapping[str, str]


ROLLING = {"option.rolling_batch": "auto", "option.max_rolling_batch_size": "32"}
ASYNC = {"option.async_mode": "true", "option.rolling_batch": "disable"}
MODES = {
    "0.25.0 rolling": Mode("0.25.0", ROLLING),
    "0.34.0 rolling": Mode("0.34.0", ROLLING),
    "0.34.0 async": Mode("0.34.0", ASYNC),
}
MODELS = {"echo": echo_folder, "lmi-dist": demo_folder}


@dataclass(frozen=True, slots=True)
class Pair:
    """The same folder behind both fronts."""

    java: JavaDriver
    embedded: Serving
    model: str


@pytest.fixture(
    scope="module",
    params=[
        ("0.25.0 rolling", "echo"),
        ("0.34.0 rolling", "echo"),
        ("0.34.0 async", "echo"),
        ("0.34.0 rolling", "lmi-dist"),
        ("0.34.0 async", "lmi-dist"),
    ],
    ids=" ".join,
)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    mode, model = request.param
    version, options = MODES[mode].version, dict(MODES[mode].options)
    root: Path = tmp_path_factory.mktemp("pair")
    try:
        build(version)
    except Unavailable as missing:
        pytest.skip(str(missing))
    folder = MODELS[model](root / "model", options)
    with (
        serving(root / "log", str(folder)) as embedded,
        JavaDriver(version, engine_cache(root, version), root) as java,
    ):
        java.load(folder)
        yield Pair(java, embedded, model)


STAMPS = re.compile(r'("(?:id|created|system_fingerprint)": ?)("[^"]*"|[0-9.]+|null)')


def unstamped(body: str) -> str:
    """Without what no two answers share."""
    return STAMPS.sub(r"\1_", body)


def ask_embedded(server: Serving, case: Case) -> httpx.Response:
    body = case.body if isinstance(case.body, str) else json.dumps(case.body, ensure_ascii=False)
    return httpx.post(
        f"{server.url}/invocations",
        content=body.encode(),
        headers={"Content-Type": JSON, **case.properties},
        timeout=60,
    )


def as_error(answer: Answer) -> dict[str, Any]:
    """Java writes an error's object itself: its keys in any order, in 0.25.0 over several lines."""
    found: dict[str, Any] = json.loads(answer.body)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_request_has_the_same_answer_behind_java_and_on_our_server(
    pair: Pair, case: Case
) -> None:
    if case.chat and pair.model == "echo":
        pytest.skip("the echo engine has no chat template")
    ours = ask_embedded(pair.embedded, case)
    answer = pair.java.predict(case.body, properties=case.properties)
    assert answer.trouble is None
    assert (ours.status_code != 200) is case.refused, ours.text
    if not case.refused:
        assert answer.code == 200
        if case.stamped:
            assert unstamped(answer.body) == unstamped(ours.text)
        else:
            assert answer.body == ours.text
        if pair.java.version != "0.25.0":  # which tells its clients one content type always
            assert answer.headers["Content-Type"] == ours.headers["content-type"]
        return
    if pair.java.version != "0.25.0":  # which has no status for a request of a rolling batch
        assert answer.code == ours.status_code
    assert as_error(answer) == ours.json()


def test_three_hundred_requests_at_once_each_get_their_own_answer(pair: Pair) -> None:
    # 0.34.0 waits for room in its list as long as predict_timeout says; the rest queue in Java.
    words = [f"request number {number}" for number in range(300)]
    bodies = [
        {"inputs": word, "parameters": {"max_new_tokens": 6}, "stream": number % 2 == 0}
        for number, word in enumerate(words)
    ]
    some = (0, 1, 150, 299)
    alone = [pair.java.predict(bodies[number]).body for number in some]
    pending = [pair.java.submit(body) for body in bodies]
    answers = [waiting.answer.result(60) for waiting in pending]
    assert {answer.code for answer in answers} == {200}
    assert [answer.trouble for answer in answers] == [None] * 300
    assert [answers[number].body for number in some] == alone


def test_a_stream_comes_in_pieces_and_not_at_its_end(pair: Pair) -> None:
    body = {"inputs": "Return the name", "parameters": {"max_new_tokens": 40}, "stream": True}
    answer = pair.java.predict(body)
    assert answer.body.count("\n") == 40
    if pair.model != "echo":  # which says everything within a millisecond
        assert len(answer.sizes) >= 10
        assert answer.times[0] < answer.times[-1] / 2


def test_bad_requests_harm_none_of_those_beside_them(pair: Pair) -> None:
    good = {"inputs": "Return the name of", "parameters": {"max_new_tokens": 20}}
    alone = pair.java.predict(good).body
    bodies: list[object] = [good, "{", {"inputs": 3}, good, {"nothing": 1}, good]
    answers = [p.answer.result(60) for p in [pair.java.submit(body) for body in bodies]]
    assert [answer.body for answer in answers if "generated_text" in answer.body] == [alone] * 3
    assert sum("error" in json.loads(answer.body) for answer in answers) == 3
