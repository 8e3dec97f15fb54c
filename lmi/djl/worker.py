"""The life of the process that Java starts: check, listen, say so, serve one connection, end.

check             what fails here ends the process with 2 (3 for a build): Java says so
bind and listen   then the marker line, within 120 seconds of the start
accept            Java connects when all ranks have said the marker
initialise        the first message; see `front` for all that follows
end               0 where Java left or a signal came, else 1; whatever lives is cancelled
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import uvloop

from lmi.core import BuildError, LmiError
from lmi.djl import logs
from lmi.djl.arguments import Arguments
from lmi.djl.front import Front
from lmi.djl.host import Host
from lmi.djl.listener import listening
from lmi.djl.parent import end_server, end_with_parent
from lmi.session import Served

log = logging.getLogger("lmi.djl")

# Seconds. Java connects when the slowest of its ranks has said the marker, within two minutes.
_ACCEPT: Final = 150.0
_METRICS_EVERY: Final = 10.0  # seconds
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def run(arguments: Arguments, host: Host, *, end_java: Callable[[], object] = end_server) -> int:
    """Be the worker until Java leaves; returns the exit code of the process.

    end_java: ends the Java server, for the one failure that it would hang on.
    """
    logs.configure(arguments.log_level)
    log.info("%d - djl_python_engine started with args: %s", os.getpid(), arguments)
    end_with_parent()
    try:
        host.check()
        with listening(arguments.address) as listener:
            logs.say(logs.MARKER)
            code = uvloop.run(_serve(arguments, host, listener, end_java))
    except LmiError as error:
        for line in str(error).splitlines():
            log.error("%s", line)
        code = 3 if isinstance(error, BuildError) else 2
    log.info("%d - Python process finished", os.getpid())
    return code


async def _serve(
    arguments: Arguments, host: Host, listener: socket.socket, end_java: Callable[[], object]
) -> int:
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    try:
        async with asyncio.timeout(_ACCEPT):
            connection, _ = await loop.sock_accept(listener)
    except TimeoutError:
        log.error("the model server did not connect within %g s", _ACCEPT)
        return 1
    listener.close()
    if not isinstance(arguments.address, Path):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    metrics: set[asyncio.Task[None]] = set()

    def ready(served: Served) -> None:
        gc.collect()
        gc.freeze()  # what start-up made stays: no collection needs to look at it again
        metrics.add(loop.create_task(_show_metrics(served)))

    front = Front(arguments, host, end_java, ready)
    for number in _SIGNALS:
        loop.add_signal_handler(number, partial(front.end, 0))
    await loop.connect_accepted_socket(lambda: front.channel, connection)
    try:
        return await front.run()
    finally:
        for task in metrics:
            task.cancel()


async def _show_metrics(served: Served) -> None:
    metrics = logs.Metrics(served)
    while True:
        await asyncio.sleep(_METRICS_EVERY)
        for line in metrics.lines():
            logs.say(line)
