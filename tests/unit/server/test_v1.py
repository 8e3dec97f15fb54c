"""OpenAI's routes: paths, statuses, names of models, and OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest

from lmi.core import Adapter, Delta, Engine, EngineError, Finish, Token
from lmi.engines.echo import EchoConfig
from lmi.server import ServerConfig, build_app
from lmi.session import SessionConfig
from tests.support.engines.hosting import HostingEngine
from tests.support.engines.poisonable import POISON, Poisonable
from tests.support.scripted import ScriptedEngine
from tests.unit.schemas.openai_cases import TEMPLATE
from tests.unit.server.conftest import Plan, Served, in_process, until

pytestmark = pytest.mark.anyio

HELLO = [{"role": "user", "content": "hello world"}]
CHAT: dict[str, Any] = {"model": "m", "messages": HELLO, "max_tokens": 4}
TEXT: dict[str, Any] = {"model": "m", "prompt": "hello world", "max_tokens": 4}
SAID = "<user>hello "  # four tokens of what the template makes

PLAN = Plan(chat=TEMPLATE)


def scripted() -> Engine:
    engine = ScriptedEngine(max_batch=1)
    engine.answer_first = "warm"
    return engine


@asynccontextmanager
async def client(plan: Plan = PLAN) -> AsyncIterator[tuple[openai.AsyncOpenAI, Served]]:
    async with in_process(plan) as served:
        yield (
            openai.AsyncOpenAI(
                base_url="http://test/v1",
                api_key="none",
                http_client=served.client,
                max_retries=0,
            ),
            served,
        )


async def test_a_chat_and_a_completion_are_answered() -> None:
    async with client() as (ask, _):
        chat = await ask.chat.completions.create(**CHAT)
        assert chat.choices[0].message.content == SAID
        assert chat.choices[0].finish_reason == "length"
        assert chat.usage is not None
        assert (chat.model, chat.usage.completion_tokens) == ("m", 4)
        text = await ask.completions.create(**TEXT)
        assert text.choices[0].text == "hello world"
        assert text.id != chat.id


async def test_streams_bring_the_same_text() -> None:
    async with client() as (ask, _):
        options = {"include_usage": True}
        chunks = [
            chunk
            async for chunk in await ask.chat.completions.create(
                **CHAT, n=2, stream=True, stream_options=options
            )
        ]
        whole = await ask.chat.completions.create(**CHAT, n=2)
        for place, choice in enumerate(whole.choices):
            said = [
                each.delta.content or ""
                for chunk in chunks
                for each in chunk.choices
                if each.index == place
            ]
            assert "".join(said) == choice.message.content
        assert chunks[-1].usage == whole.usage
        texts = [
            chunk.choices[0].text
            async for chunk in await ask.completions.create(**TEXT, stream=True)
        ]
        assert "".join(texts) == (await ask.completions.create(**TEXT)).choices[0].text


async def test_log_probabilities_reach_the_client() -> None:
    async with client() as (ask, _):
        chat = await ask.chat.completions.create(**CHAT, logprobs=True, top_logprobs=2)
        logprobs = chat.choices[0].logprobs
        assert logprobs is not None
        content = logprobs.content or []
        assert bytes(byte for each in content for byte in each.bytes or ()).decode() == SAID
        assert [len(each.top_logprobs) for each in content] == [2] * 4
        text = await ask.completions.create(**TEXT, logprobs=1)
        shown = text.choices[0].logprobs
        assert shown is not None
        assert "".join(shown.tokens or []) == text.choices[0].text


async def test_errors_are_the_clients_own_types() -> None:
    async with client() as (ask, _):
        with pytest.raises(openai.BadRequestError) as bad:
            await ask.chat.completions.create(**{**CHAT, "max_tokens": 0})
        assert (bad.value.param, bad.value.type) == ("max_tokens", "invalid_request_error")
        with pytest.raises(openai.NotFoundError) as missing:
            await ask.completions.create(**{**TEXT, "model": "zz"})
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as long:
            await ask.completions.create(**{**TEXT, "prompt": "x" * 100_000})
        assert (long.value.code, long.value.param) == ("context_length_exceeded", "prompt")
        with pytest.raises(openai.BadRequestError) as long_chat:
            await ask.chat.completions.create(
                **{**CHAT, "messages": [{"role": "user", "content": "x" * 100_000}]}
            )
        assert long_chat.value.param == "messages"
        with pytest.raises(openai.NotFoundError):
            await ask.models.retrieve("zz")


async def test_a_full_queue_is_a_rate_limit_and_a_model_that_loads_is_unavailable() -> None:
    plan = Plan(scripted, session=SessionConfig("m", max_queue=0), chat=TEMPLATE)
    async with client(plan) as (ask, served):
        engine = served.engines[0]
        assert isinstance(engine, ScriptedEngine)
        held = asyncio.ensure_future(ask.completions.create(**TEXT))
        await until(lambda: len(engine.submitted) == 2)
        with pytest.raises(openai.RateLimitError) as full:
            await ask.chat.completions.create(**CHAT)
        assert full.value.code == "rate_limit_exceeded"
        assert int(full.value.response.headers["retry-after"]) >= 1
        assert served.session.measures.refused == {429: 1}
        engine.say(engine.submitted[-1].id, "x", Finish.EOS)
        engine.wake()
        assert (await held).choices[0].text == "x"
    async with client(replace(PLAN, wait=False)) as (ask, served):
        with pytest.raises(openai.InternalServerError) as loading:
            await ask.chat.completions.create(**CHAT)
        assert loading.value.status_code == 503
        assert loading.value.response.headers["retry-after"] == "5"
        await served.session.ready()
        assert (await ask.chat.completions.create(**CHAT)).choices


async def test_a_failure_of_the_engine_is_the_servers_fault() -> None:
    plan = Plan(lambda: Poisonable(EchoConfig()), chat=TEMPLATE)
    async with client(plan) as (ask, _):
        with pytest.raises(openai.InternalServerError) as failed:
            await ask.completions.create(**{**TEXT, "prompt": POISON})
        assert failed.value.status_code == 500
        assert (await ask.completions.create(**TEXT)).choices


async def test_an_error_in_a_stream_raises_in_the_client_and_ends_the_stream() -> None:
    async with in_process(Plan(scripted, chat=TEMPLATE)) as served:
        engine = served.engines[0]
        assert isinstance(engine, ScriptedEngine)
        asked = served.client.post("/v1/chat/completions", json={**CHAT, "stream": True})
        answer = asyncio.ensure_future(asked)
        await until(lambda: len(engine.submitted) == 2)
        number = engine.submitted[-1].id
        engine.push(Delta(number, 0, (Token(1, "a"),)))
        engine.push(Delta(number, 0, (), Finish.ERROR, error=EngineError("boom")))
        engine.wake()
        body = (await answer).text
    *events, error, done, rest = body.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert json.loads(error.removeprefix("data: "))["error"]["message"] == "boom"
    assert len(events) == 2

    def replay(request: httpx.Request) -> httpx.Response:
        headers = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=headers, content=body)

    async with httpx.AsyncClient(transport=httpx.MockTransport(replay)) as transport:
        ask = openai.AsyncOpenAI(base_url="http://test/v1", api_key="x", http_client=transport)
        with pytest.raises(openai.APIError, match="boom"):
            async for _ in await ask.chat.completions.create(**CHAT, stream=True):
                pass


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/embeddings", 404),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/models/zz", 404),
    ],
)
async def test_what_does_not_exist_is_said_in_openais_form(
    method: str, path: str, status: int
) -> None:
    async with in_process(PLAN) as served:
        answer = await served.client.request(method, path)
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_client_cannot_choose_the_handler() -> None:
    async with in_process(PLAN) as served:
        for path in ("/invocations", "/v1/completions"):
            answer = await served.client.post(path, json=TEXT, headers={"handler": "evil"})
            assert answer.status_code == 400
            assert "handler" in answer.text


async def test_the_same_body_is_answered_on_invocations() -> None:
    async with in_process(PLAN) as served:
        for body in (CHAT, TEXT):
            answer = await served.client.post("/invocations", json={**body, "model": "any"})
            assert answer.json()["usage"]["completion_tokens"] == 4
        bad = await served.client.post("/invocations", json={**CHAT, "n": 0})
        assert (bad.status_code, bad.json()["code"]) == (424, 424)


async def test_models_are_listed_with_their_adapters(tmp_path: Any) -> None:
    plan = Plan(lambda: HostingEngine(Adapter("lora", tmp_path)), chat=TEMPLATE)
    async with client(plan) as (ask, _):
        models = [model async for model in ask.models.list()]
        assert [model.id for model in models] == ["m", "lora"]
        assert (await ask.models.retrieve("lora")).id == "lora"
        answer = await ask.completions.create(**{**TEXT, "model": "lora"})
        assert (answer.model, answer.choices[0].text) == ("lora", "lora: hello ")


async def test_of_several_models_the_body_names_one() -> None:
    other = Plan(session=SessionConfig("b"), chat=TEMPLATE)
    hosting = Plan(lambda: HostingEngine(Adapter("lora", None)), chat=TEMPLATE)  # type: ignore[arg-type]
    async with in_process(hosting) as one, in_process(other) as two:
        app = build_app({"m": one.session, "b": two.session}, ServerConfig())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            for name in ("m", "b", "lora"):
                answer = await http.post("/v1/completions", json={**TEXT, "model": name})
                assert (answer.status_code, answer.json()["model"]) == (200, name)
            for body in ({**TEXT, "model": "zz"}, {"prompt": "x"}, [], "x"):
                answer = await http.post("/v1/completions", json=body)
                assert answer.status_code == 404
                assert answer.json()["error"]["code"] == "model_not_found"
            for session, accepted in ((one.session, 2), (two.session, 1)):
                assert session.measures.accepted == accepted
