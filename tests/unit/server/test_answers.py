"""What the server answers: bodies, statuses, headers."""

from __future__ import annotations

import json
import logging
import threading

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmi.core import Engine, GenerationRequest, Head, ModelError, OutOfMemory, UnknownAdapter
from lmi.engines.echo import EchoConfig
from lmi.server import ServerConfig, build_app
from lmi.server.headers import head_headers, reply_headers
from lmi.server.metrics import Metrics
from lmi.session import SessionConfig
from tests.support.engines.poisonable import POISON, Poisonable
from tests.support.scripted import ScriptedEngine
from tests.unit.server.conftest import Plan, in_process, schema, until

pytestmark = pytest.mark.anyio

BODY = {"inputs": "hello world how are you", "parameters": {"max_new_tokens": 4}}


async def test_an_answer_is_the_dialects_bytes_with_the_contracts_headers() -> None:
    async with in_process(Plan()) as served:
        answer = await served.client.post("/invocations", json=BODY)
        assert answer.status_code == 200
        assert answer.content == b'{"generated_text": "hello world "}'
        headers = dict(answer.headers)
        assert len(headers.pop("x-request-id")) == 36
        assert headers == {
            "content-type": "application/json",
            "content-length": str(len(answer.content)),
            "pragma": "no-cache",
            "cache-control": "no-cache; no-store, must-revalidate, private",
            "expires": "Thu, 01 Jan 1970 00:00:00 UTC",
        }


@pytest.mark.parametrize(
    ("options", "content_type"),
    [
        ({}, "application/jsonlines"),
        ({"tgi_compat": True}, "text/event-stream"),
        ({"form": "0.25"}, "application/jsonlines"),
        ({"form": "async"}, "application/jsonlines"),
        ({"output_formatter": "sse"}, "text/event-stream"),
    ],
)
async def test_a_stream_has_its_forms_content_type_and_no_length(
    options: dict[str, object], content_type: str
) -> None:
    async with in_process(Plan(session=schema(**options))) as served:
        answer = await served.client.post("/invocations", json={**BODY, "stream": True})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == content_type
        assert "content-length" not in answer.headers
        assert answer.content.count(b"world"[:3]) >= 1


@pytest.mark.parametrize(
    "path", ["/invocations", "/predictions/m", "/predictions/m/1.0", "/models/m/invoke"]
)
async def test_every_inference_path_of_the_reference_answers(path: str) -> None:
    async with in_process(Plan()) as served:
        answer = await served.client.post(path, json=BODY)
        assert answer.json() == {"generated_text": "hello world "}
        assert (await served.client.options(path)).json() == {}


async def test_the_model_of_invocations_may_be_named_by_query_or_header() -> None:
    async with in_process(Plan()) as served, in_process(Plan()) as other:
        sessions = {"a": served.session, "b": other.session}
        transport = httpx.ASGITransport(build_app(sessions, ServerConfig()))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            unnamed = await client.post("/invocations", json=BODY)
            assert unnamed.status_code == 400
            assert unnamed.json()["message"] == "Parameter model_name is required."
            accepted = other.session.measures.accepted
            assert (await client.post("/invocations?model_name=b", json=BODY)).is_success
            by_header = await client.post("/invocations", json=BODY, headers={"model_name": "b"})
            assert by_header.is_success
            assert other.session.measures.accepted == accepted + 2
            assert (await client.post("/invocations?model_name=c", json=BODY)).status_code == 404


async def test_the_request_id_and_the_custom_attributes_come_back() -> None:
    plan = Plan(server=ServerConfig(request_id_header="x-amzn-sagemaker-inference-id"))
    async with in_process(plan) as served:
        sent = {
            "X-Amzn-SageMaker-Inference-Id": "mine",
            "X-Amzn-SageMaker-Custom-Attributes": "a=1;b=2",
        }
        for path, body in (("/invocations", BODY), ("/invocations", {}), ("/models/none", None)):
            answer = await served.client.request(
                "POST" if body is not None else "GET", path, json=body, headers=sent
            )
            assert answer.headers["x-request-id"] == "mine"
            assert answer.headers["x-amzn-sagemaker-custom-attributes"] == "a=1;b=2"


@pytest.mark.parametrize(
    ("path", "body", "status", "expected"),
    [
        ("/invocations", b"{", 424, {"code": 424}),
        ("/invocations", b'{"inputs": 3}', 424, {"code": 424}),
        ("/predictions/zz", b"{}", 404, {"type": "ModelNotFoundException"}),
        ("/models/zz/invoke", b"{}", 404, {"type": "ModelNotFoundException"}),
        ("/v2/models", b"{}", 404, {"type": "ResourceNotFoundException"}),
        ("/nothing", b"", 404, {"type": "ResourceNotFoundException"}),
        ("/metrics", b"", 405, {"code": 405}),
    ],
)
async def test_a_refusal_is_json_with_the_status_in_it(
    path: str, body: bytes, status: int, expected: dict[str, object]
) -> None:
    async with in_process(Plan()) as served:
        answer = await served.client.post(path, content=body)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        assert answer.json().items() >= {"code": status, **expected}.items()
        assert "x-request-id" in answer.headers


async def test_an_ignored_parameter_is_in_the_header_and_once_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with in_process(Plan()) as served:
        for _ in range(3):
            body = {**BODY, "parameters": {"temprature": 1, "zzz": 2}}
            answer = await served.client.post("/invocations", json=body)
            header = answer.headers["x-lmi-ignored-parameters"]
            assert header == "temprature (temperature?), zzz"
        assert caplog.text.count("temprature (temperature?)") == 1
        plain = await served.client.post("/invocations", json=BODY)
        assert "x-lmi-ignored-parameters" not in plain.headers


async def test_the_access_log_has_no_prompt_and_no_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    async with in_process(Plan()) as served:
        await served.client.post("/invocations?secret=SECRET", json={"inputs": "SECRET"})
        await served.client.post("/invocations", content=b'{"inputs": "SECRET", "parameters": 1}')
    lines = [record.getMessage() for record in caplog.records if record.name == "lmi.access"]
    assert [line.rsplit(" ", 1)[0] for line in lines] == [
        '127.0.0.1 "POST /invocations HTTP/1.1" 200',
        '127.0.0.1 "POST /invocations HTTP/1.1" 424',
    ]
    assert "SECRET" not in caplog.text


async def test_a_body_that_is_too_large_is_refused_by_its_length_and_while_it_comes() -> None:
    sent = []

    async def endless():  # type: ignore[no-untyped-def]
        while True:
            sent.append(1)
            yield b"x" * 100

    async with in_process(Plan(server=ServerConfig(max_request_size=1000))) as served:
        announced = await served.client.post("/invocations", content=b"x" * 1001)
        assert announced.status_code == 413
        assert "1000 bytes" in announced.json()["message"]
        streamed = await served.client.post("/invocations", content=endless())
        assert streamed.status_code == 413
        assert len(sent) <= 12
        assert (await served.client.post("/invocations", json=BODY)).is_success


async def test_an_error_of_the_engine_is_a_status_before_the_first_byte_and_an_event_after_it() -> (
    None
):
    async with in_process(Plan(make=lambda: Poisonable(EchoConfig()))) as served:
        body = {"inputs": POISON, "parameters": {"max_new_tokens": 9}}
        whole = await served.client.post("/invocations", json=body)
        assert whole.status_code == 424
        assert whole.json() == {"code": 424, "error": "the request asked to fail"}
        streamed = await served.client.post("/invocations", json={**body, "stream": True})
        assert streamed.status_code == 200
        last = json.loads(streamed.text.splitlines()[-1])
        assert last["details"] == {"finish_reason": "error"}
        assert last["token"]["error_msg"] == "the request asked to fail"
        assert (await served.client.post("/invocations", json=BODY)).is_success


@pytest.mark.parametrize(
    ("error", "status"), [(OutOfMemory("no memory"), 507), (UnknownAdapter("no such adapter"), 404)]
)
async def test_an_engines_refusal_has_its_own_status(error: Exception, status: int) -> None:
    def refuse(asked: GenerationRequest) -> None:
        if asked.prompt == "refuse":
            raise error

    def make() -> Engine:
        engine = ScriptedEngine(refuse=refuse)
        engine.answer_first = "warm"
        return engine

    async with in_process(Plan(make=make)) as served:
        answer = await served.client.post("/invocations", json={"inputs": "refuse"})
        assert answer.status_code == status
        assert answer.json() == {"code": status, "error": str(error)}


@pytest.mark.parametrize(("throttle", "expected"), [(429, 429), (503, 503)])
async def test_a_full_queue_answers_with_retry_after(throttle: int, expected: int) -> None:
    def make() -> Engine:
        engine = ScriptedEngine(max_batch=1)
        engine.answer_first = "warm"
        return engine

    plan = Plan(make, ServerConfig(throttle_status=throttle), SessionConfig("m", max_queue=0))
    async with in_process(plan) as served:
        served.session.open(served.session.parse(b'{"inputs": "x"}', {}), _Nothing())
        answer = await served.client.post("/invocations", json=BODY)
        assert answer.status_code == answer.json()["code"] == expected
        assert answer.json()["type"] == "WlmCapacityException"
        assert int(answer.headers["retry-after"]) >= 1
        metrics = (await served.client.get("/metrics")).text
        assert f'lmi_requests_refused_total{{model="m",status="{expected}"}} 1.0' in metrics


class _Nothing:
    def describe(self, head: Head) -> None:
        pass

    def write(self, data: bytes, last: bool) -> None:
        pass

    def fail(self, error: Exception) -> None:
        pass


async def test_ping_is_red_while_loading_green_when_ready_and_red_when_the_engine_is_gone() -> None:
    gate = threading.Event()

    def make() -> Engine:
        assert gate.wait(20)
        engine = ScriptedEngine()
        engine.answer_first = "warm"
        return engine

    plan = Plan(make, session=SessionConfig("m", restart_limit=0), wait=False)
    async with in_process(plan) as served:
        loading = await served.client.get("/ping")
        assert loading.status_code == 503
        assert loading.json()["m"]["status"] == "PENDING"
        early = await served.client.post("/invocations", json=BODY)
        assert early.status_code == early.json()["code"] == 503
        assert "retry-after" in early.headers
        gate.set()
        await served.session.ready()
        ready = await served.client.get("/ping")
        assert ready.status_code == 200
        assert ready.text == '{\n  "m": {\n    "status": "Healthy"\n  }\n}\n'
        engine = served.engines[0]
        assert isinstance(engine, ScriptedEngine)
        engine.die("signal 9")
        await until(lambda: not served.session.health().ready)
        gone = await served.client.get("/ping")
        assert gone.status_code in (500, 503)
        assert "signal 9" in gone.json()["m"]["reason"]
        await until(lambda: str(served.session.health().state) == "failed")
        assert (await served.client.get("/ping")).status_code == 500
        refused = await served.client.post("/invocations", json=BODY)
        assert refused.status_code == 503
        assert "retry-after" not in refused.headers


async def test_ping_gives_the_reason_of_a_load_that_failed() -> None:
    def make() -> Engine:
        raise ModelError("config.json is missing")

    async with in_process(Plan(make, wait=False)) as served:
        with pytest.raises(ModelError):
            await served.session.ready()
        answer = await served.client.get("/ping")
        assert answer.status_code == 500
        assert answer.json()["m"] == {
            "status": "FAILED",
            "reason": "failed: config.json is missing",
        }


async def test_the_models_are_listed_and_described() -> None:
    async with in_process(Plan()) as served:
        listed = (await served.client.get("/models")).json()
        assert listed["models"] == [{"modelName": "m", "modelUrl": "m", "status": "Healthy"}]
        [described] = (await served.client.get("/models/m")).json()
        model = described["models"][0]
        assert model["status"] == "Healthy"
        assert model["engine"]["maxBatchSize"] == 512
        assert model["workerGroups"][0]["workers"][0]["status"] == "READY"
        assert (await served.client.get("/models/zz")).status_code == 404


async def test_the_metrics_count_what_happened() -> None:
    async with in_process(Plan()) as served:
        await served.client.post("/invocations", json=BODY)
        await served.client.post("/invocations", json={**BODY, "stream": True})
        await served.client.post("/invocations", content=b"{")
        text = (await served.client.get("/metrics")).text
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert values['lmi_requests_accepted_total{model="m"}'] == "2.0"
        assert values['lmi_requests_ended_total{model="m",outcome="ok"}'] == "2.0"
        assert values['lmi_requests_refused_total{model="m",status="424"}'] == "1.0"
        assert values['lmi_generated_tokens_total{model="m"}'] == "8.0"
        assert values['lmi_time_to_first_token_seconds_count{model="m"}'] == "2.0"
        assert values['lmi_inter_token_latency_seconds_count{model="m"}'] == "6.0"
        assert values['lmi_request_duration_seconds_bucket{le="+Inf",model="m"}'] == "2.0"
        assert values['lmi_ready{model="m"}'] == "1.0"
        assert values['lmi_kv_blocks_used{model="m"}'] == "0.0"


async def test_the_openapi_document_names_every_path_and_parameter() -> None:
    async with in_process(Plan()) as served:
        document = (await served.client.get("/openapi.json")).json()
        assert set(document["paths"]) >= {
            "/invocations",
            "/ping",
            "/predictions/{model}",
            "/metrics",
            "/v1/chat/completions",
            "/v1/completions",
            "/models/{model}/adapters",
        }
        parameters = document["components"]["schemas"]["LmiParameters"]["properties"]
        assert "max_new_tokens" in parameters
        chat = document["components"]["schemas"]["ChatBody"]["properties"]
        assert {"messages", "temperature", "response_format"} <= chat.keys()
        page = (await served.client.get("/docs")).text
        assert "openapi.json" in page
        assert "//" not in page.replace("<!doctype html>", "")


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=400), st.text(max_size=100))
def test_no_text_from_outside_can_break_a_header(value: str, name: str) -> None:
    headers = reply_headers(
        {"x-request-id": value, "x-amzn-sagemaker-custom-attributes": value}, "x-request-id"
    )
    headers += head_headers(Head(headers=(("x-lmi-ignored-parameters", f"{name} ({value}?)"),)))
    for _, shown in headers:
        assert all(0x20 <= byte <= 0x7E for byte in shown)


def test_two_servers_in_one_process_count_for_themselves() -> None:
    assert b"lmi_ready" in Metrics({}).text()
    assert b"lmi_ready" in Metrics({}).text()
