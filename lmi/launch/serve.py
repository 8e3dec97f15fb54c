"""From a decided configuration to a listening endpoint, and back to a clean exit.

The port opens first, so that a platform's health check sees an honest 503 while the model loads;
a taken port and a model that can't be loaded end the process with one line.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

import uvloop

from lmi import server
from lmi.config import Resolution
from lmi.config.spec import ModelSpec
from lmi.core import ConfigError
from lmi.launch.heap import give_large_blocks_back
from lmi.launch.model import binder, facts, loaded, make
from lmi.launch.preflight import preflight
from lmi.launch.progress import reporter
from lmi.session import Served, State

log = logging.getLogger("lmi.start")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen, from the command line; None leaves it to the configuration."""

    host: str | None = None
    port: int | None = None


def serve(resolution: Resolution, environ: Mapping[str, str], address: Address) -> None:
    """Serve until SIGTERM or SIGINT. Raises LmiError when the model can't be served."""
    preflight(resolution)
    give_large_blocks_back()
    spec = resolution.spec
    config = server_config(spec, address)
    log.info("%s: engine %s: %s", spec.name, spec.engine, spec.reason)
    for warning in resolution.warnings:
        log.warning("%s", warning)
    try:
        listener = server.bind(config)
    except OSError as error:
        where = f"{config.host}:{config.port}"
        raise ConfigError(
            "inference_address", where, "the address to listen on", error.strerror or str(error)
        ) from error
    with listener:
        uvloop.run(_serve(spec, environ, config, listener))


async def _serve(
    spec: ModelSpec,
    environ: Mapping[str, str],
    config: server.ServerConfig,
    listener: socket.socket,
) -> None:
    started = time.monotonic()
    session = make(spec, binder(spec, environ), environ)
    sessions = {spec.name: session}
    ports: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    app = server.build_app(sessions, config)
    serving = asyncio.ensure_future(
        server.serve(app, config, sessions, listener, listening=ports.set_result)
    )
    with closing(reporter()) as phases:
        session.start(phases.report)
        loading = asyncio.ensure_future(loaded(session, spec))
        await asyncio.wait({serving, loading}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done() or session.health().state in (State.DRAINING, State.CLOSED):
        loading.cancel()  # a signal came first
    elif loading.exception() is not None:
        serving.cancel()
        await asyncio.wait({serving})
        loading.result()
    else:
        gc.freeze()  # what start-up made stays for good: no collection needs to look at it again
        _say_ready(session, spec, f"http://{config.host}:{await ports}", time.monotonic() - started)
    await serving


def _say_ready(session: Served, spec: ModelSpec, url: str, seconds: float) -> None:
    log.info("%s: %s", spec.name, facts(session))
    log.info("ready after %.1f s: %s serves %s", seconds, url, spec.name)
    if spec.code is None:
        log.info(
            """try: curl %s/invocations -H 'Content-Type: application/json' """
            """-d '{"inputs": "Return a copy of the", "parameters": {"max_new_tokens": 40}}'""",
            url,
        )


def server_config(spec: ModelSpec, address: Address) -> server.ServerConfig:
    """What the server is told."""
    settings = spec.server
    return server.ServerConfig(
        host=settings.host if address.host is None else address.host,
        port=settings.port if address.port is None else address.port,
        max_request_size=settings.max_request_size,
        grace=float(spec.drain_seconds),
        throttle_status=settings.throttle_error_http_code,
        request_id_header=settings.request_id_header_key,
        adapter_folders=() if spec.folder is None else (spec.folder,),
    )
