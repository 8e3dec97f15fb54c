"""A model of the Java side, driven at random: rolling batch and async, over one worker's front.

The model knows what each client must have got in the end; the fake Java refuses what would break
the real one on the way.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from lmi.core import BadPayload, EngineDead, Head
from lmi.djl import Arguments, Width
from lmi.djl.front import Front
from tests.support.djl_bytes import JavaRequest
from tests.support.djl_client import FakeJava
from tests.support.scripted_served import Opened, ScriptedServed
from tests.unit.djl.conftest import ASYNC, ROLLING, Host

T = TypeVar("T")
TURNS = 20  # of the loop: more than any answer needs on a socket pair

texts = st.text(st.sampled_from("aé€𝄞\n"), max_size=6)


class Client:
    """What one client must have in the end."""

    def __init__(self, asked: JavaRequest) -> None:
        self.asked = asked
        self.opened: Opened | None = None
        self.text = ""
        self.error: str | None = None
        self.over = False


class JavaSide(RuleBasedStateMachine):
    """Both modes: `self.rolling` chooses when it starts."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clients: list[Client] = []
        self.refuse = False
        self.number = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    @initialize(rolling=st.booleans(), width=st.sampled_from(Width))
    def start(self, rolling: bool, width: Width) -> None:
        self.rolling = rolling
        self.served = ScriptedServed(self._accept)
        self.run(self._connect(width if rolling else Width.LONG))

    async def _connect(self, width: Width) -> None:
        ours, theirs = socket.socketpair()
        arguments = Arguments(Path(tempfile.gettempdir()), "s", field_limit=1100)
        self.front = Front(arguments, Host(self.served), lambda: None)
        self.java = FakeJava(width, limit=1100)
        await self.loop.connect_accepted_socket(lambda: self.front.channel, ours)
        await self.loop.connect_accepted_socket(lambda: self.java, theirs)
        self.running = self.loop.create_task(self.front.run())
        options = {**ROLLING, "predict_timeout": "0.004"} if self.rolling else ASYNC
        await self.java.initialise(options)

    def _accept(self, opened: Opened) -> None:
        if self.refuse:
            raise BadPayload("refused")
        client = next(each for each in self.clients if each.asked.body == opened.call.body)
        assert client.opened is None, "a request was given to the model twice"
        client.opened = opened
        opened.sink.describe(Head(headers=(("content-type", "x/y"),)))

    @rule(refused=st.booleans())
    def ask(self, refused: bool) -> None:
        self.number += 1
        body = f"request {self.number}".encode()
        rolling = self.java.rolling
        client = Client(rolling.add(body) if self.rolling else JavaRequest({}, body))
        self.clients.append(client)
        self.refuse = refused
        if refused:
            client.error, client.over = "refused", True
        if self.rolling:
            self.run(rolling.step())
        else:
            self.run(self._open(client))
        self.refuse = False

    async def _open(self, client: Client) -> None:
        client.asked = self.java.open(client.asked.body)
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def _live(self) -> list[Client]:
        return [client for client in self.clients if client.opened and client.opened.open]

    @precondition(lambda self: self._live())
    @rule(which=st.randoms(use_true_random=False), text=texts, last=st.booleans())
    def say(self, which: Any, text: str, last: bool) -> None:
        client = which.choice(self._live())
        client.text += text
        client.over = last
        client.opened.say(text.encode(), last)

    @precondition(lambda self: self._live())
    @rule(which=st.randoms(use_true_random=False), size=st.integers(900, 4000))
    def say_much(self, which: Any, size: int) -> None:
        client = which.choice(self._live())
        client.text += "€" * size
        client.opened.say(("€" * size).encode())

    @precondition(lambda self: any(not client.text for client in self._live()))
    @rule(which=st.randoms(use_true_random=False))
    def fail(self, which: Any) -> None:
        client = which.choice([client for client in self._live() if not client.text])
        client.error, client.over = "killed", True
        client.opened.fail(EngineDead("killed"))

    @rule()
    def step(self) -> None:
        if self.rolling:
            self.run(self.java.rolling.step())
        else:
            self.run(asyncio.sleep(0))

    @precondition(lambda self: self.rolling and self.java.rolling.live)
    @rule()
    def reset(self) -> None:
        for client in self.clients:
            if not client.asked.last:
                client.asked.fail(500, "lost")
                client.error, client.over = "lost", True
        self.java.rolling.live = []
        self.java.rolling._reset = True
        self.run(self.java.rolling.step())
        assert not self._live(), "what was forgotten still runs"

    @invariant()
    def nobody_has_what_was_not_said(self) -> None:
        for client in self.clients:
            if client.error is None:
                assert client.text.startswith(client.asked.text)

    def teardown(self) -> None:
        if self.loop.is_closed() or not hasattr(self, "java"):
            self.loop.close()
            return
        for client in self._live():
            client.over = True
            assert client.opened is not None
            client.opened.say(b"", last=True)
        self.run(self._settle())
        for client in self.clients:
            assert client.asked.complete, "a client waits for ever"
            if client.error is None:
                assert (client.asked.text, client.asked.status) == (client.text, 200)
            else:
                assert client.asked.error == client.error
        self.java.close()
        assert self.run(asyncio.wait_for(self.running, 20)) == 0
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    async def _settle(self) -> None:
        if self.rolling:
            await self.java.rolling.finish()
        else:
            await self.java.until(lambda: not self.java.asked)


TestJavaSide = JavaSide.TestCase
TestJavaSide.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
