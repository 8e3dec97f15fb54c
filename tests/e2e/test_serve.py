"""The demo model behind the real command: what a newcomer does first, and what goes wrong later."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.serving import DEMO, Serving, serving

pytestmark = pytest.mark.slow

PROMPT = "Return the name of"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("serve") / "log", str(DEMO)) as started:
        yield started


def ask(server: Serving, body: dict[str, object], **more: object) -> httpx.Response:
    return httpx.post(f"{server.url}/invocations", json=body, timeout=60, **more)  # type: ignore[arg-type]


def parameters(**given: object) -> dict[str, object]:
    return {"inputs": PROMPT, "parameters": {"max_new_tokens": 24, **given}}


def test_the_first_request_of_the_readme_is_answered_in_words(server: Serving) -> None:
    answer = ask(server, parameters())
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    text = answer.json()["generated_text"]
    words = [word for word in text.split() if word.isalpha()]
    assert len(words) >= 5, text


def test_a_streamed_answer_is_the_whole_answer(server: Serving) -> None:
    whole = ask(server, parameters()).json()["generated_text"]
    streamed = ask(server, {**parameters(), "stream": True})
    lines = [json.loads(line) for line in streamed.text.splitlines()]
    assert len(lines) == 24
    assert "".join(line["token"]["text"] for line in lines) == whole
    assert lines[-1]["generated_text"] == whole


def test_the_same_prompt_many_times_at_once_gives_the_same_text(server: Serving) -> None:
    alone = ask(server, parameters()).json()["generated_text"]
    found: list[str] = []

    def one() -> None:
        found.append(ask(server, parameters()).json()["generated_text"])

    threads = [threading.Thread(target=one) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 16


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"{", "JSON"),
        (b'{"inputs": 3}', "inputs"),
        (b'{"inputs": "x", "parameters": {"temperature": -1}}', "temperature"),
        (b'{"inputs": "x", "parameters": {"top_p": 7}}', "top_p"),
        (b'{"inputs": "x", "parameters": {"max_new_tokens": 0}}', "max_new_tokens"),
        (b'{"inputs": "x", "parameters": {"max_new_tokens": 1e99}}', "max_new_tokens"),
    ],
)
def test_a_bad_body_is_refused_with_the_field_and_harms_nobody(
    server: Serving, body: bytes, named: str
) -> None:
    answer = httpx.post(f"{server.url}/invocations", content=body, timeout=30)
    assert answer.status_code == 424
    assert named in answer.json()["error"]
    assert ask(server, parameters()).status_code == 200


def test_a_prompt_that_can_never_fit_is_refused_with_the_numbers(server: Serving) -> None:
    answer = ask(server, {"inputs": "word " * 50_000})
    assert answer.status_code == 424
    assert any(character.isdigit() for character in answer.json()["error"])


def test_an_unknown_parameter_is_said_with_the_nearest_name(server: Serving) -> None:
    answer = ask(server, parameters(temprature=0.5))
    assert answer.status_code == 200
    said = [value for value in answer.headers.values() if "temprature" in value]
    assert said
    assert "temperature" in said[0]


def test_a_client_that_leaves_stops_its_generation(server: Serving) -> None:
    body = json.dumps(
        {
            "inputs": PROMPT,
            "parameters": {"max_new_tokens": 900, "ignore_eos_token": True},
            "stream": True,
        }
    ).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        client.recv(1)
    deadline = time.monotonic() + 5
    while (running := metric(server, "running")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert running == 0
    assert metric(server, "kv_blocks_used") == 0


def metric(server: Serving, ending: str) -> float:
    """The sum of the gauges whose name ends so."""
    found = [
        float(line.rsplit(" ", 1)[1])
        for line in httpx.get(f"{server.url}/metrics").text.splitlines()
        if not line.startswith("#") and line.split("{")[0].split(" ")[0].endswith(ending)
    ]
    assert found, ending
    return sum(found)


def test_a_killed_engine_ends_streams_at_once_and_comes_back(tmp_path: Path) -> None:
    with serving(tmp_path / "log", str(DEMO)) as server:
        engines = server.engine_processes()
        assert engines
        lines: list[str] = []
        first = threading.Event()

        def stream() -> None:
            body = {**parameters(max_new_tokens=900, ignore_eos_token=True), "stream": True}
            with httpx.stream("POST", f"{server.url}/invocations", json=body, timeout=60) as reply:
                for line in reply.iter_lines():
                    lines.append(line)
                    first.set()

        reader = threading.Thread(target=stream)
        reader.start()
        assert first.wait(30)
        killed = time.monotonic()
        for engine in engines:
            engine.kill()
        while server.ping() == 200 and time.monotonic() - killed < 5:
            pass
        red = time.monotonic() - killed
        reader.join(5)
        ended = time.monotonic() - killed
        assert not reader.is_alive()
        assert red < 1
        assert ended < 1
        events = [line for line in lines if "error" in line]
        assert len(events) == 1
        assert events[0] == lines[-1]
        server.wait_for_ping(200)
        assert ask(server, parameters()).status_code == 200
        assert server.process.poll() is None


def test_sigterm_lets_live_requests_finish_and_exits_zero(tmp_path: Path) -> None:
    with serving(tmp_path / "log", str(DEMO)) as server:
        body = {**parameters(max_new_tokens=300, ignore_eos_token=True), "stream": True}
        with httpx.stream("POST", f"{server.url}/invocations", json=body, timeout=60) as reply:
            lines = reply.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert json.loads(rest[-1])["generated_text"]
        assert len(rest) == 299
        assert server.process.wait(20) == 0


def test_sigterm_while_loading_is_a_clean_end(tmp_path: Path) -> None:
    with serving(tmp_path / "log", str(DEMO), ready=False) as server:
        server.wait_for_ping(503)
        assert server.stop() == 0, server.log
    assert "Traceback" not in server.log


def test_a_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        server = Serving(["--set", "engine=echo"], {}, tmp_path / "log", port=port)
        assert server.process.wait(30) == 2
    assert f"127.0.0.1:{port}" in server.log
    assert "Traceback" not in server.log


def test_a_missing_model_is_said_in_one_line_with_exit_two(tmp_path: Path) -> None:
    server = Serving(["--model", str(tmp_path / "nothing-here")], {}, tmp_path / "log")
    assert server.process.wait(60) == 2
    assert "nothing-here" in server.log
    assert "Traceback" not in server.log
