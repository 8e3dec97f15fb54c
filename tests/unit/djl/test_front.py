"""The first message, what ends a worker, and adapters."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from lmi.core import Adapter, BadPayload, ModelError, OutOfMemory, UnknownAdapter
from lmi.djl import Arguments
from tests.support.djl_client import Disconnected
from tests.support.scripted_served import ScriptedServed
from tests.unit.djl.conftest import ASYNC, ROLLING, Drive

pytestmark = pytest.mark.anyio


async def test_the_map_reaches_the_host_as_it_was_written(drive: Drive) -> None:
    async with drive(ScriptedServed(), {"minWorkers": "1", "Model_Id": "x"}) as pair:
        assert pair.host.seen == {"handler": "handle", "minWorkers": "1", "Model_Id": "x"}


@pytest.mark.parametrize(
    ("error", "code"), [(ModelError("no weights\nat all"), 500), (OutOfMemory("full"), 507)]
)
async def test_a_failed_load_is_told_in_one_line(drive: Drive, error: Exception, code: int) -> None:
    async with drive(error, initialise=False) as pair:
        reply = await pair.java.initialise(ROLLING)
        assert (reply.code, reply.message) == (code, str(error).replace("\n", " "))
        assert await pair.running == 1
        assert pair.ended == []


@pytest.mark.parametrize("by_command_line", [True, False])
async def test_a_failed_load_in_async_mode_ends_java_and_is_never_answered(
    drive: Drive, by_command_line: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = Arguments(tmp_path, "sock", async_mode=by_command_line)
    error = ModelError("no weights")
    async with drive(error, initialise=False, arguments=arguments) as pair:
        with pytest.raises(Disconnected):
            await pair.java.initialise({} if by_command_line else ASYNC)
        assert pair.ended == [None]
        assert await pair.running == 1
    assert "no weights" in caplog.text


async def test_garbage_ends_the_worker_with_a_reason(
    drive: Drive, caplog: pytest.LogCaptureFixture
) -> None:
    async with drive(ScriptedServed()) as pair:
        pair.java.send_bytes(b"\xff" * 100)
        with pytest.raises(Disconnected):
            await pair.java.reply()
        assert await pair.running == 1
    assert "no message of its protocol" in caplog.text


async def test_a_normal_end_says_nothing_of_errors(
    drive: Drive, caplog: pytest.LogCaptureFixture
) -> None:
    async with drive(ScriptedServed()) as pair:
        pass
    assert pair.running.result() == 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("options", [{}, ROLLING])
async def test_a_rank_that_serves_nothing_answers_with_an_error(
    drive: Drive, options: Mapping[str, str]
) -> None:
    async with drive(None, options) as pair:
        if options:
            one = pair.java.rolling.add(b"x")
            await pair.java.rolling.finish(one)
            assert one.status == 500
        else:
            assert (await pair.java.predict(b"x")).status == 500


class WithAdapters(ScriptedServed):
    """A model that takes adapters, but none called `broken`."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Adapter] = {}

    def adapters(self) -> Mapping[str, Adapter]:
        return self.known

    async def register_adapter(self, adapter: Adapter, /) -> None:
        if adapter.name == "broken":
            raise BadPayload("it does not fit")
        self.known[adapter.name] = adapter

    async def unregister_adapter(self, name: str, /) -> None:
        if name not in self.known:
            raise UnknownAdapter(f"no {name}")
        del self.known[name]


def adapter_call(handler: str, name: str, **more: str) -> dict[str, str]:
    return {"handler": handler, "name": name, **more}


async def test_adapters_are_registered_changed_and_removed(drive: Drive, tmp_path: Path) -> None:
    (tmp_path / "adapters" / "a").mkdir(parents=True)
    served = WithAdapters()
    async with drive(served) as pair:
        register = adapter_call("register_adapter", "a", src="adapters/a", alias="the a")
        items = [("pin", b"false"), ("preload", b"false"), ("name", b"a")]
        answer = await pair.java.predict(None, register, items)
        assert (answer.status, answer.reason) == (200, "Adapter the a registered")
        assert served.known["a"] == Adapter("a", tmp_path / "adapters" / "a", preload=False)
        update = adapter_call("update_adapter", "a")
        pin = [("pin", b"true"), ("preload", b"true")]
        assert (await pair.java.predict(None, update, pin)).status == 200
        assert served.known["a"].pin
        unpin = await pair.java.predict(None, update, [("pin", b"false")])
        assert unpin.status == 400
        remove = adapter_call("unregister_adapter", "a")
        assert (await pair.java.predict(None, remove)).reason == "Adapter a unregistered"
        assert (await pair.java.predict(None, remove)).status == 404
        assert served.known == {}


@pytest.mark.parametrize(
    "src", ["", "/etc", "../..", "adapters/none", "http://x/y", "s3://b/k", "a\0b", "file://h/x"]
)
async def test_an_adapter_from_elsewhere_is_refused(drive: Drive, tmp_path: Path, src: str) -> None:
    async with drive(WithAdapters()) as pair:
        answer = await pair.java.predict(None, adapter_call("register_adapter", "a", src=src))
        assert answer.status == 400


async def test_a_model_without_adapters_says_so(drive: Drive) -> None:
    async with drive(ScriptedServed()) as pair:
        answer = await pair.java.predict(None, adapter_call("register_adapter", "a", src="x"))
        assert answer.status == 400
        assert b"LoRA is not enabled." in answer.body


async def test_adapters_in_async_mode_are_answered_and_their_failure_is_logged(
    drive: Drive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "x").mkdir()
    async with drive(WithAdapters(), ASYNC) as pair:
        good = await pair.java.ask(b"", adapter_call("register_adapter", "a", src="x"))
        assert (good.status, good.text) == (200, "Adapter a registered")
        bad = await pair.java.ask(b"", adapter_call("register_adapter", "broken", src="x"))
        assert (bad.status, bad.error) == (424, "it does not fit")
    assert "register_adapter broken: it does not fit" in caplog.text
