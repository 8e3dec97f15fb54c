"""A user's model.py behind DJL's real Java classes, and behind our own server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.java_build import Unavailable, build
from tests.support.java_driver import JavaDriver
from tests.support.java_folders import engine_cache, handler_folder
from tests.support.serving import Serving, serving

pytestmark = pytest.mark.slow

MODEL = '''
"""Written as users write theirs: every kind of answer, by what the request asks for."""
import os
import time

from djl_python import Input, Output

loaded = 0


def pieces(kind, n, gap=0.0):
    for number in range(n):
        time.sleep(gap)
        yield number


def one(request: Input):
    asked = request.get_as_json()
    kind = asked["kind"]
    if kind == "json":
        return Output().add_as_json({"echo": asked["say"], "pid": os.getpid()})
    if kind == "header":
        seen = request.get_property("x-seen")
        return Output().add_property("X-Back", seen).add_property("Content-Type", "a/b").add("b")
    if kind == "bytes":
        return Output().add(b"\\x00" * asked["size"])
    if kind == "stream":
        return Output().add_stream_content(pieces(**asked), output_formatter=lambda x: f"{x}\\n")
    if kind == "error":
        return Output().error("the user's own words", code=418, message="teapot")
    if kind == "raise":
        raise ValueError("no " + kind)
    if kind == "die":
        os._exit(9)
    raise AssertionError(kind)


def handle(inputs: Input):
    global loaded
    if inputs.is_empty():
        loaded += 1
        return None
    if not inputs.is_batch():
        return one(inputs)
    outputs = Output()
    for index, request in enumerate(inputs.get_batches()):
        asked = request.get_as_json()
        outputs.add_as_json({"echo": asked["say"]}, batch_index=index)
    return outputs
'''


@pytest.fixture(
    scope="module",
    params=[("0.25.0", {}), ("0.34.0", {}), ("0.34.0", {"option.async_mode": "true"})],
    ids=lambda given: f"{given[0]} {'async' if given[1] else 'plain'}",
)
def java(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[JavaDriver]:
    version, options = request.param
    root: Path = tmp_path_factory.mktemp("handler")
    try:
        build(version)
    except Unavailable as missing:
        pytest.skip(str(missing))
    folder = handler_folder(root / "model", MODEL, options)
    with JavaDriver(version, engine_cache(root, version), root) as driver:
        driver.load(folder)
        yield driver


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    root = tmp_path_factory.mktemp("handler")
    with serving(root / "log", str(handler_folder(root / "model", MODEL))) as server:
        yield server


def ask(server: Serving, body: object, **headers: str) -> httpx.Response:
    return httpx.post(f"{server.url}/invocations", json=body, headers=headers, timeout=30)


def test_an_object_comes_back_as_the_user_made_it(java: JavaDriver, embedded: Serving) -> None:
    body = {"kind": "json", "say": "é 你好 👋"}
    answer, ours = java.predict(body), ask(embedded, body)
    assert answer.code == ours.status_code == 200
    assert answer.json()["echo"] == ours.json()["echo"] == body["say"]


def test_a_handler_sees_headers_and_sets_its_own(java: JavaDriver, embedded: Serving) -> None:
    answer = java.predict({"kind": "header"}, properties={"X-Seen": "me"})
    ours = ask(embedded, {"kind": "header"}, **{"X-Seen": "me"})
    for headers in (answer.headers, ours.headers):
        found = {name.lower(): value for name, value in headers.items()}
        assert found["x-back"] == "me"
        assert found["content-type"] == "a/b"
    assert answer.body == ours.text == "b"


def test_a_stream_comes_piece_by_piece(java: JavaDriver, embedded: Serving) -> None:
    body = {"kind": "stream", "n": 5, "gap": 0.1}
    answer = java.predict(body)
    assert answer.trouble is None
    assert answer.stream
    assert answer.times[0] < answer.times[-1] - 200
    assert answer.body == ask(embedded, body).text == "".join(f"{n}\n" for n in range(5))


def test_a_stream_that_is_there_at_once_is_whole(java: JavaDriver) -> None:
    answer = java.predict({"kind": "stream", "n": 1000})
    assert answer.trouble is None
    assert answer.body == "".join(f"{n}\n" for n in range(1000))


def test_an_empty_stream_ends(java: JavaDriver) -> None:
    answer = java.predict({"kind": "stream", "n": 0})
    assert (answer.code, answer.body, answer.trouble) == (200, "", None)


def test_an_error_of_the_users_has_its_status_and_words(
    java: JavaDriver, embedded: Serving
) -> None:
    answer, ours = java.predict({"kind": "error"}), ask(embedded, {"kind": "error"})
    assert answer.code == ours.status_code == 418
    assert answer.json()["error"] == ours.json()["error"] == "the user's own words"


def test_a_handler_that_raises_fails_its_own_request_and_its_trace_is_in_the_log(
    java: JavaDriver, embedded: Serving
) -> None:
    answer, ours = java.predict({"kind": "raise"}), ask(embedded, {"kind": "raise"})
    assert answer.code == ours.status_code == 424
    assert "ValueError" in java.log
    assert "Traceback" in java.log
    assert java.predict({"kind": "json", "say": "on"}).code == 200


def test_a_handler_that_kills_its_process_fails_its_own_request(java: JavaDriver) -> None:
    before = java.workers()[0].pid
    answer = java.predict({"kind": "die"})
    assert answer.code >= 400
    again = java.predict({"kind": "json", "say": "on"})
    assert again.json()["echo"] == "on"
    assert java.workers()[0].pid == before, "Java must not have to restart the worker"


def test_an_unknown_function_is_refused_by_its_name(java: JavaDriver) -> None:
    answer = java.predict({"kind": "json", "say": "x"}, properties={"handler": "nothing_such"})
    assert answer.code >= 400
    assert "nothing_such" in answer.body + str(answer.message)


def test_a_batch_of_java_is_answered_in_its_order(java: JavaDriver) -> None:
    if "async mode" in java.log:
        pytest.skip("Java makes no batches in async mode")
    bodies = [{"kind": "json", "say": n} for n in range(5)]
    answers = java.batch(bodies)
    assert [answer.json()["echo"] for answer in answers] == list(range(5))


def test_an_answer_near_javas_limit_arrives_whole(java: JavaDriver) -> None:
    size = 19 * 1024 * 1024
    answer = java.predict({"kind": "bytes", "size": size})
    assert (answer.code, len(answer.body)) == (200, size)


def test_an_answer_over_javas_limit_is_an_error_and_no_dead_worker(java: JavaDriver) -> None:
    before = java.workers()[0].pid
    answer = java.predict({"kind": "bytes", "size": 21 * 1024 * 1024})
    assert answer.code >= 400 or sum(answer.sizes) == 21 * 1024 * 1024
    if answer.code >= 400:
        assert json.loads(answer.body)
    assert java.predict({"kind": "json", "say": "on"}).code == 200
    assert java.workers()[0].pid == before
