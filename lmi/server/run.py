"""Running the application: uvicorn on uvloop and httptools, and the way out on a signal.

A first SIGTERM or SIGINT turns /ping red and lets live requests finish; the port stays open
meanwhile, so that a load balancer sees the red ping and a late client its 503. A second signal ends
at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Generator, Mapping

import uvicorn
from starlette.types import ASGIApp

from lmi.server.config import ServerConfig
from lmi.server.protocol import bounded
from lmi.session import Served

log = logging.getLogger("lmi.server")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_BACKLOG = 2048  # connections that may wait for accept; bursts come faster than a turn of the loop
_CLOSE_TIME = 5.0  # seconds for connections to close after their last answer


class _Uvicorn(uvicorn.Server):
    """Signals are ours: uvicorn would stop listening at once and forget the requests' grace."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def bind(config: ServerConfig) -> socket.socket:
    """The listening socket, bound before anything is loaded: a taken port is known at once."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(False)
    return listener


async def serve(
    app: ASGIApp,
    config: ServerConfig,
    sessions: Mapping[str, Served],
    listener: socket.socket,
    *,
    listening: Callable[[int], None] = lambda port: None,
) -> None:
    """Serve until a signal, then drain and close the sessions. Returns when all is done.

    listening: called with the port once connections are accepted.
    """
    server = _Uvicorn(
        uvicorn.Config(
            app,
            loop="none",
            http=bounded(config),
            ws="none",
            lifespan="off",
            backlog=_BACKLOG,
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            timeout_keep_alive=round(config.keep_alive),
            timeout_graceful_shutdown=round(_CLOSE_TIME),
        ),
        listening=lambda: listening(listener.getsockname()[1]),
    )
    loop = asyncio.get_running_loop()
    leaving: set[asyncio.Task[None]] = set()

    def leave() -> None:
        if leaving:
            log.warning("second signal: ending at once")
            server.should_exit = server.force_exit = True
            return
        log.info("signal: draining for up to %g s", config.grace)
        leaving.add(loop.create_task(_drain(sessions, config.grace, server)))

    for number in _SIGNALS:
        loop.add_signal_handler(number, leave)
    try:
        await server.serve([listener])
    except asyncio.CancelledError:
        server.force_exit = True
        await server.shutdown([listener])
        raise
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*(session.close() for session in sessions.values()))


async def _drain(sessions: Mapping[str, Served], grace: float, server: _Uvicorn) -> None:
    await asyncio.gather(*(session.drain(grace) for session in sessions.values()))
    server.should_exit = True
