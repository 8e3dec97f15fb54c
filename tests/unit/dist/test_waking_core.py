"""A core over a library that computes by itself wakes the worker; nobody looks at intervals."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from lmi.core import EngineInfo, Finish
from lmi.dist.channel import Channel
from lmi.dist.messages import CoreEvent, CoreRequest, CoreStats
from lmi.dist.wire import Close, FromWorker, Stepped, Submit, decode_from_worker, frame
from lmi.dist.worker import serve
from lmi.ipc.framing import Deframer


class Pushed:
    """A core whose news come from another thread."""

    info: EngineInfo

    def __init__(self) -> None:
        self._bell = os.eventfd(0, os.EFD_NONBLOCK)
        self._news: list[CoreEvent] = []
        self.steps = 0

    def fileno(self) -> int:
        return self._bell

    @property
    def has_work(self) -> bool:
        return bool(self._news)

    def happen(self, event: CoreEvent) -> None:
        self._news.append(event)
        os.eventfd_write(self._bell, 1)

    def add(self, request: CoreRequest, /) -> None: ...

    def cancel(self, request_id: int, choice: int | None = None, /) -> None: ...

    def step(self) -> list[CoreEvent]:
        self.steps += 1
        os.eventfd_read(self._bell)
        news, self._news = self._news, []
        return news

    def stats(self) -> CoreStats:
        return CoreStats()

    def close(self) -> None:
        os.close(self._bell)


class Front:
    """The other end of the worker's socket."""

    def __init__(self, link: socket.socket) -> None:
        self._link, self._deframer = link, Deframer()

    def hear(self) -> list[FromWorker]:
        """The messages that come next."""
        while True:
            found = list(self._deframer.feed(self._link.recv(1 << 16)))
            if found:
                return [decode_from_worker(each) for each in found]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        yield ours, theirs


def test_news_of_another_thread_are_told_at_once_and_messages_are_heard_between_them(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    with closing(Pushed()) as core:
        worker = threading.Thread(target=serve, args=(Channel(theirs), core))
        worker.start()
        front = Front(ours)
        for token in (5, 6):
            event = CoreEvent(1, 0, token, Finish.EOS if token == 6 else None)
            core.happen(event)
            (told,) = front.hear()
            assert isinstance(told, Stepped)
            assert told.events == [event]
            ours.sendall(frame(Submit(CoreRequest(token, (1,)))))
            (heard,) = front.hear()
            assert isinstance(heard, Stepped)
            assert not heard.events
        ours.sendall(frame(Close()))
        worker.join(10)
        assert not worker.is_alive()
        assert core.steps == 2
