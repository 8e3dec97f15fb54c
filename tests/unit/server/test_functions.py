"""A model that is a function, on real connections: what it gets, and that its head is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest

from lmi.core import Call, EngineError, FunctionInfo, Head, Piece, Route
from lmi.server import ServerConfig, bind, build_app, serve
from lmi.session import FunctionConfig, FunctionSession
from tests.support.scripted_function import ScriptedFunction
from tests.unit.server.conftest import until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@dataclass
class Asked:
    """A client of a server with one function, and the calls that reach it."""

    client: httpx.AsyncClient
    function: ScriptedFunction

    async def answer(
        self, *pieces: tuple[bytes, bool], head: Head, path: str = "/invocations", **request: object
    ) -> httpx.Response:
        """Post a request and let the function say these pieces."""
        function = self.function
        before = len(function.submitted)
        asked = asyncio.ensure_future(self.client.post(path, **request))  # type: ignore[arg-type]
        await until(lambda: len(function.submitted) > before or asked.done())
        if not asked.done():
            for place, (data, last) in enumerate(pieces):
                function.bring(Piece(function.last, data, None if place else head, last))
                await asyncio.sleep(0)
        return await asked

    @property
    def call(self) -> Call:
        return self.function.submitted[self.function.last]


@asynccontextmanager
async def function() -> AsyncIterator[Asked]:
    scripted = ScriptedFunction()
    session = FunctionSession(FunctionConfig("f"), lambda progress: scripted)
    config = ServerConfig(port=0)
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    app = build_app({"f": session}, config)
    serving = asyncio.create_task(
        serve(app, config, {"f": session}, bind(config), listening=port.set_result)
    )
    session.start()
    await session.ready()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{await port}", timeout=30) as client:
        yield Asked(client, scripted)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


OK = Head(headers=(("content-type", "image/png"),))


async def test_a_function_gets_the_query_and_any_body_as_items() -> None:
    async with function() as asked:
        answer = await asked.answer(
            (b"\x89PNG", True), head=OK, params={"a": "1"}, content=b"\0\1",
            headers={"content-type": "tensor/npz", "X-Own": "x"},
        )  # fmt: skip
        assert (answer.content, answer.headers["content-type"]) == (b"\x89PNG", "image/png")
        assert asked.call.content == (("a", b"1"), ("data", b"\0\1"))
        assert asked.call.properties["x-own"] == "x"


async def test_a_function_gets_a_form_field_by_field() -> None:
    async with function() as asked:
        await asked.answer((b"", True), head=OK, data={"a": "ü", "b": ""})
        assert asked.call.content == (("a", "ü".encode()), ("b", b""))
        await asked.answer((b"", True), head=OK, data={"a": "1"}, files={"f": b"\0\xff"})
        assert asked.call.content == (("a", b"1"), ("f", b"\0\xff"))
        bad = await asked.answer(
            head=OK, content=b"--x", headers={"content-type": "multipart/form-data; boundary=x"}
        )
        assert (bad.status_code, bad.json()["type"]) == (400, "BadRequestException")


async def test_a_function_answers_on_openais_routes() -> None:
    async with function() as asked:
        answer = await asked.answer(
            (b"{}", True), head=OK, path="/v1/chat/completions", json={"messages": []}
        )
        assert answer.content == b"{}"
        assert asked.call.route is Route.CHAT


@pytest.mark.parametrize(
    ("head", "status", "reason"),
    [
        (Head(), 200, "OK"),
        (Head(201, "Made it"), 201, "Made it"),
        (Head(424, "bad\r\nx: y ü"), 424, "bad??x: y ?"),
        (Head(42, "OK"), 500, "Internal Server Error"),
        (Head(999, "Beyond"), 500, "Beyond"),
    ],
)
async def test_a_functions_status_and_reason_are_sent(head: Head, status: int, reason: str) -> None:
    async with function() as asked:
        for pieces in ([(b"ab", True)], [(b"a", False), (b"b", True)]):
            answer = await asked.answer(*pieces, head=head)
            assert (answer.status_code, answer.reason_phrase) == (status, reason)
            assert answer.content == b"ab"
            assert "x" not in answer.headers


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_has_none(status: int) -> None:
    async with function() as asked:
        for _ in range(2):  # on one connection: nothing of the first is left in the way
            answer = await asked.answer((b"dropped", True), head=Head(status, "No content"))
            assert (answer.status_code, answer.content) == (status, b"")
            assert "content-length" not in answer.headers


async def test_headers_that_are_none_or_the_connections_are_left_out() -> None:
    headers = {
        "content-type": "text/plain", "x-own": "a\nb", "content-length": "99",
        "transfer-encoding": "chunked", "bad name": "x", "": "x", "ü": "x",
    }  # fmt: skip
    async with function() as asked:
        answer = await asked.answer((b"ok", True), head=Head(headers=tuple(headers.items())))
        assert answer.content == b"ok"
        own: Mapping[str, str] = answer.headers
        assert (own["x-own"], own["content-length"], own["content-type"]) == (
            "a?b",
            "2",
            "text/plain",
        )
        assert not {"bad name", "ü", "transfer-encoding"} & own.keys()


async def test_a_failed_call_is_an_error_in_the_routes_form() -> None:
    async with function() as asked:
        for path, key in (("/invocations", "code"), ("/v1/completions", "error")):
            post = asyncio.ensure_future(asked.client.post(path, json={}))
            await until(lambda: bool(asked.function.open))
            asked.function.fail(asked.function.last, EngineError("the worker died"))
            answer = await post
            assert answer.status_code in (424, 500)
            assert key in answer.json()
            assert "the worker died" in answer.text


async def test_a_function_is_described_among_the_models() -> None:
    async with function() as asked:
        described = (await asked.client.get("/models/f")).json()[0]["models"][0]
        assert isinstance(asked.function.info, FunctionInfo)
        assert described["function"]["name"] == asked.function.info.name
        listed = (await asked.client.get("/v1/models")).json()["data"]
        assert [card["id"] for card in listed] == ["f"]
        assert (await asked.client.get("/adapters")).status_code == 400
