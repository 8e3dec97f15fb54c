"""The adapters' API: register, list, update, delete; from which folders; after a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from lmi.core import Adapter, BadPayload, EngineDead, OutOfMemory
from lmi.server import ServerConfig
from tests.support.engines.hosting import HostingEngine
from tests.unit.server.conftest import Plan, Served, in_process, until

pytestmark = pytest.mark.anyio


class Dying(HostingEngine):
    """Dies when it is asked to register."""

    def register_adapter(self, adapter: Adapter, /) -> Future[None]:
        self.close()
        assert self._wake is not None
        self._wake()
        return super().register_adapter(adapter)


@asynccontextmanager
async def hosting(folder: Path) -> AsyncIterator[Served]:
    for name in ("one", "two"):
        (folder / "adapters" / name).mkdir(parents=True)
    (folder / "file").write_text("x")
    config = ServerConfig(adapter_folders=(folder,))
    async with in_process(Plan(HostingEngine, config)) as served:
        yield served


async def register(served: Served, **query: str) -> httpx.Response:
    return await served.client.post("/adapters", params=query)


@pytest.mark.parametrize("base", ["/adapters", "/models/m/adapters"])
async def test_an_adapter_lives_from_registration_to_deletion(base: str, tmp_path: Path) -> None:
    async with hosting(tmp_path) as served:
        ask = served.client
        query = {"name": "a", "src": "adapters/one"}
        assert (await ask.post(base, params=query)).json() == {"status": "Adapter a registered"}
        source = str((tmp_path / "adapters/one").resolve())
        shown = {"name": "a", "src": source, "preload": True, "pin": False}
        assert (await ask.get(f"{base}/a")).json() == shown
        assert (await ask.get(base)).json() == {"adapters": [shown]}
        named = {"inputs": "x", "adapters": "a", "parameters": {"max_new_tokens": 1}}
        assert (await ask.post("/invocations", json=named)).json()["generated_text"] == "a: "
        updated = await ask.post(f"{base}/a/update", params={"pin": "true"})
        assert updated.json() == {"status": "Adapter a updated"}
        assert (await ask.get(f"{base}/a")).json() == {**shown, "pin": True}
        assert (await ask.delete(f"{base}/a")).json() == {"status": "Adapter a unregistered"}
        assert (await ask.get(f"{base}/a")).status_code == 404
        assert (await ask.post("/invocations", json=named)).status_code == 404


async def test_a_request_names_an_adapter_by_header_query_body_or_model(tmp_path: Path) -> None:
    async with hosting(tmp_path) as served:
        await register(served, name="a", src="adapters/one")
        await register(served, name="b", src="adapters/two")
        body = {"inputs": "x", "parameters": {"max_new_tokens": 1}}
        ways: list[tuple[dict[str, str], dict[str, str], dict[str, object]]] = [
            ({"X-AMZN-sagemaker-Adapter-Identifier": "a"}, {"adapter": "b"}, {"adapters": "b"}),
            ({}, {"adapter": "a"}, {"adapters": "b"}),
            ({}, {}, {"adapters": ["a"], "model": "b"}),
            ({}, {}, {"model": "a"}),
        ]
        for headers, query, more in ways:
            answer = await served.client.post(
                "/invocations", headers=headers, params=query, json={**body, **more}
            )
            assert answer.json() == {"generated_text": "a: "}


async def test_an_alias_is_what_the_answer_says(tmp_path: Path) -> None:
    async with hosting(tmp_path) as served:
        answer = await served.client.post(
            "/adapters",
            params={"name": "a", "src": f"file://{tmp_path}/adapters/one"},
            headers={"X-Amzn-SageMaker-Adapter-Alias": "nice"},
        )
        assert answer.json() == {"status": "Adapter nice registered"}


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ({"name": "taken", "src": "adapters/two"}, 409, "already"),
        ({"src": "adapters/one"}, 400, "name"),
        ({"name": "a/b", "src": "adapters/one"}, 400, "name"),
        ({"name": "m", "src": "adapters/one"}, 400, "a model has this name"),
        ({"name": "a"}, 400, "src"),
        ({"name": "a", "src": "adapters/none"}, 400, "inside"),
        ({"name": "a", "src": "file"}, 400, "inside"),
        ({"name": "a", "src": "../"}, 400, "inside"),
        ({"name": "a", "src": "/etc"}, 400, "inside"),
        ({"name": "a", "src": "out"}, 400, "inside"),
        ({"name": "a", "src": "file:///etc"}, 400, "inside"),
        ({"name": "a", "src": "file://host/etc"}, 400, "local"),
        ({"name": "a", "src": "s3://bucket/a"}, 400, "local"),
        ({"name": "a", "src": "https://host/a"}, 400, "local"),
        ({"name": "a", "src": "a\0b"}, 400, "path"),
        ({"name": "a", "src": "adapters/one", "pin": "yes"}, 400, "true or false"),
        ({"name": "a", "src": "adapters/one", "pin": "true", "preload": "false"}, 400, "preload"),
    ],
)
async def test_a_registration_that_cannot_be_is_refused_with_the_reason(
    query: dict[str, str], status: int, said: str, tmp_path: Path
) -> None:
    async with hosting(tmp_path) as served:
        (tmp_path / "out").symlink_to("/etc")
        await register(served, name="taken", src="adapters/one")
        answer = await register(served, **query)
        assert (answer.status_code, answer.json()["code"]) == (status, status)
        assert said in answer.json()["message"]
        assert (await served.client.get("/adapters")).json()["adapters"][1:] == []


async def test_an_update_changes_neither_source_nor_unpins(tmp_path: Path) -> None:
    async with hosting(tmp_path) as served:
        await register(served, name="a", src="adapters/one", pin="true")
        update = "/adapters/a/update"
        same = await served.client.post(update, params={"src": "adapters/one"})
        assert same.status_code == 200
        for query in ({"src": "adapters/two"}, {"pin": "false"}):
            assert (await served.client.post(update, params=query)).status_code == 400
        for answer in (
            await served.client.post("/adapters/zz/update"),
            await served.client.delete("/adapters/zz"),
            await served.client.get("/models/zz/adapters"),
        ):
            assert answer.status_code == 404


async def test_what_the_engine_says_is_the_answer(tmp_path: Path) -> None:
    async with hosting(tmp_path) as served:
        engine = served.engines[0]
        assert isinstance(engine, HostingEngine)
        for error, status in ((OutOfMemory("no free slot"), 507), (BadPayload("rank 64"), 424)):
            engine.fail = error
            answer = await register(served, name="a", src="adapters/one")
            assert answer.status_code == status
            assert str(error) in answer.text
        assert not engine.adapters()


async def test_an_engine_without_adapters_says_so() -> None:
    async with in_process(Plan()) as served:
        answer = await register(served, name="a", src="x")
        assert answer.status_code == 400
        assert answer.json()["message"] == "LoRA is not enabled."


async def test_a_new_engine_gets_what_was_registered_and_not_what_was_removed(
    tmp_path: Path,
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first = Adapter("first", tmp_path / "one")
    config = ServerConfig(adapter_folders=(tmp_path,))
    async with in_process(Plan(lambda: HostingEngine(first), config)) as served:
        await register(served, name="a", src="two")
        await served.client.delete("/adapters/first")
        served.session._died(EngineDead("killed"))
        await until(lambda: len(served.engines) == 2 and served.session.health().ready)
        engine = served.engines[1]
        assert isinstance(engine, HostingEngine)
        assert list(engine.adapters()) == ["a"]


async def test_an_engine_that_dies_over_its_adapters_is_replaced_and_never_called_ready(
    tmp_path: Path,
) -> None:
    (tmp_path / "one").mkdir()
    engines = iter([HostingEngine, Dying, HostingEngine])
    config = ServerConfig(adapter_folders=(tmp_path,))
    async with in_process(Plan(lambda: next(engines)(), config)) as served:
        await register(served, name="a", src="one")
        served.session._died(EngineDead("killed"))
        await until(lambda: served.session.health().ready)
        assert len(served.engines) == 3
        named = {"inputs": "x", "adapters": "a", "parameters": {"max_new_tokens": 1}}
        answer = await served.client.post("/invocations", json=named)
        assert answer.json() == {"generated_text": "a: "}
