"""vLLM behind the real command: whole, streamed, in detail, stopped by its client, killed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from importlib.util import find_spec

import httpx
import pytest

from tests.contract.vllm_subject import write_vllm_model
from tests.support.serving import Serving, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]

READY_SECONDS = 240.0
NOTICED_SECONDS = 1.0
PROPERTIES = """
option.rolling_batch=vllm
option.dtype=fp32
option.enforce_eager=true
option.max_model_len=128
option.max_rolling_batch_size=4
option.kv_cache_memory=64MiB
option.threads=1
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = write_vllm_model(tmp_path_factory.mktemp("model"))
    (folder / "serving.properties").write_text(PROPERTIES)
    log = tmp_path_factory.mktemp("serve") / "log"
    with serving(log, str(folder), "--front", "embedded", ready=False) as started:
        started.wait_for_ping(200, READY_SECONDS)
        yield started


def body(stream: bool = False, **parameters: object) -> dict[str, object]:
    return {"inputs": "the", "stream": stream, "parameters": {"max_new_tokens": 20, **parameters}}


def ask(server: Serving, asked: dict[str, object]) -> httpx.Response:
    return httpx.post(f"{server.url}/invocations", json=asked, timeout=60)


def metric(server: Serving, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics", timeout=10).text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name}{{")).split()[-1])


def test_a_whole_answer_is_the_streamed_one(server: Serving) -> None:
    whole = ask(server, body(ignore_eos_token=True))
    assert whole.status_code == 200, whole.text
    streamed = ask(server, body(stream=True, ignore_eos_token=True))
    lines = [json.loads(line) for line in streamed.text.splitlines()]
    assert len(lines) == 20
    assert lines[-1]["generated_text"] == whole.json()["generated_text"]
    assert "".join(line["token"]["text"] for line in lines) == whole.json()["generated_text"]


def test_details_count_the_tokens_and_show_the_prompt(server: Serving) -> None:
    asked = body(details=True, decoder_input_details=True, ignore_eos_token=True)
    details = ask(server, asked).json()["details"]
    assert details["generated_tokens"] == 20
    assert details["finish_reason"] == "length"
    assert [token["text"] for token in details["prefill"]] == ["the"]
    assert all(token["log_prob"] <= 0 for token in details["tokens"])


def test_a_bad_request_is_told_which_field(server: Serving) -> None:
    answer = ask(server, body(temperature=5.0, do_sample=True))
    assert answer.status_code >= 400
    assert "temperature" in answer.text


def test_a_client_that_leaves_frees_its_place(server: Serving) -> None:
    asked = body(stream=True, ignore_eos_token=True, max_new_tokens=120)
    with httpx.stream("POST", f"{server.url}/invocations", json=asked, timeout=60) as answer:
        next(answer.iter_raw())
    until = time.monotonic() + 10
    while metric(server, "lmi_requests_running") > 0:
        assert time.monotonic() < until, "the request ran on"
    assert ask(server, body()).status_code == 200


def test_a_killed_worker_is_noticed_within_a_second_and_comes_back(server: Serving) -> None:
    worker = max(server.engine_processes(), key=lambda process: process.memory_info().rss)
    asked = body(stream=True, ignore_eos_token=True, max_new_tokens=120)
    with httpx.stream("POST", f"{server.url}/invocations", json=asked, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        killed = time.monotonic()
        worker.kill()
        last = list(lines)[-1]
        assert time.monotonic() - killed < NOTICED_SECONDS
    assert "error" in last or "vLLM" in last
    assert server.ping() != 200
    server.wait_for_ping(200, READY_SECONDS)
    assert ask(server, body()).status_code == 200
    assert not worker.is_running()
