"""DeepSpeed behind the real command, on two ranks: whole, streamed, one rank killed, stopped."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from typing import Final

import httpx
import pytest

from lmi.dist.cores import available_cores
from tests.support.serving import DEMO, Serving, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(available_cores() < 2, reason="two ranks need two cores"),
]

PROMPT: Final = "Return a copy of the"
NOTICED_SECONDS: Final = 2.0  # two ranks and a client share two cores
START_SECONDS: Final = 180.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    log = tmp_path_factory.mktemp("deepspeed") / "log"
    words = [
        "engine=DeepSpeed",
        "option.rolling_batch=deepspeed",
        "option.tensor_parallel_degree=2",
    ]
    sets = [word for pair in words for word in ("--set", pair)]
    with serving(log, str(DEMO), *sets, ready=False) as server:
        server.wait_for_ping(200, START_SECONDS)
        yield server


def text_of(server: Serving) -> str:
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 24}}
    answer = httpx.post(f"{server.url}/invocations", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["generated_text"])


def stream(server: Serving, new: int, lines: list[str], first: threading.Event) -> None:
    parameters = {"max_new_tokens": new, "ignore_eos_token": True}
    body = {"inputs": PROMPT, "parameters": parameters, "stream": True}
    with httpx.stream("POST", f"{server.url}/invocations", json=body, timeout=60) as reply:
        for line in reply.iter_lines():
            lines.append(line)
            first.set()


def test_streamed_is_whole_and_the_log_names_the_ranks(server: Serving) -> None:
    whole = text_of(server)
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 24}, "stream": True}
    answer = httpx.post(f"{server.url}/invocations", json=body, timeout=60)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert "".join([line["token"]["text"] for line in lines]) == whole
    assert "AutoTP among 2 ranks" in server.log


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_streams_with_its_name_and_the_engine_comes_back(
    server: Serving, rank: int
) -> None:
    before = text_of(server)
    lines: list[str] = []
    first = threading.Event()
    reader = threading.Thread(target=stream, args=(server, 900, lines, first))
    reader.start()
    assert first.wait(30)
    ranks = server.engine_processes()
    assert len(ranks) == 2
    killed = time.monotonic()
    ranks[rank].kill()
    reader.join(30)
    ended = time.monotonic() - killed
    assert ended < NOTICED_SECONDS
    assert server.ping() == 503
    errors = [line for line in lines if "error" in line]
    assert errors == lines[-1:]
    assert f"rank {rank} of 2" in errors[0]
    assert "SIGKILL" in errors[0]
    server.wait_for_ping(200, START_SECONDS)
    assert not [old for old in ranks if old.is_running()]
    assert text_of(server) == before


def test_sigterm_lets_a_live_stream_finish(server: Serving) -> None:
    lines: list[str] = []
    first = threading.Event()
    reader = threading.Thread(target=stream, args=(server, 64, lines, first))
    reader.start()
    assert first.wait(30)
    ranks = server.engine_processes()
    assert server.stop(signal.SIGTERM, 60) == 0
    reader.join(5)
    assert not [line for line in lines if "error" in line]
    assert json.loads(lines[-1])["generated_text"]
    assert not [left for left in ranks if left.is_running()]
