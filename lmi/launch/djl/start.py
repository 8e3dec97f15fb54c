"""From a decided configuration to the DJL model server in this process's place.

The model is fetched first, so that what can fail ends with one line and not with Java's. Then all
that the server reads is written into a folder of this server alone, and the server is executed: it
gets our process number, our signals, and gives our exit code.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from lmi.config import Resolution, Setting
from lmi.config.present import shown
from lmi.config.properties import render
from lmi.config.secure import is_secure
from lmi.config.sources import PROPERTIES
from lmi.core import ConfigError
from lmi.launch.bind import bind
from lmi.launch.djl.engine_folder import cache_folder, fill
from lmi.launch.djl.environment import environment
from lmi.launch.djl.installed import JavaServer
from lmi.launch.djl.properties import Mode, mode, model_properties, server_properties
from lmi.launch.djl.staged import Staged
from lmi.launch.preflight import preflight
from lmi.launch.progress import reporter
from lmi.launch.serve import Address

log = logging.getLogger("lmi.start")

CONFIG: Final = "config.properties"
_PRIVATE: Final = 0o700


@dataclass(frozen=True, slots=True)
class Command:
    """What is executed."""

    words: tuple[str, ...]
    environ: Mapping[str, str]


def serve(
    resolution: Resolution,
    environ: Mapping[str, str],
    address: Address,
    java: JavaServer,
    log_level: str,
) -> NoReturn:
    """Become the server. Raises LmiError when the model can't be served."""
    command = prepare(resolution, environ, address, java, log_level)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command.words[0], command.words, dict(command.environ))


def prepare(
    resolution: Resolution,
    environ: Mapping[str, str],
    address: Address,
    java: JavaServer,
    log_level: str,
) -> Command:
    """Fetch the model and write what the server reads. Raises LmiError."""
    preflight(resolution)
    spec = resolution.spec
    host = spec.server.host if address.host is None else address.host
    port = spec.server.port if address.port is None else address.port
    _check_free(host, port)
    log.info("%s: engine %s: %s", spec.name, spec.engine, spec.reason)
    for warning in resolution.warnings:
        log.warning("%s", warning)
    with closing(reporter()) as phases:
        fetched = bind(spec, environ, phases.report).path
    run = run_folder(port)
    staged = Staged(resolution.properties(), spec.folder, fetched)
    secure = is_secure(environ)
    chosen = mode(spec, has_async_mode=java.has_async_mode, secure=secure)
    config = stage(run, resolution, staged, chosen, url(host, port), secure=secure)
    cache = cache_folder(environ, Path.home())
    fill(cache / "python" / java.version)
    log.info("%s: behind the DJL model server %s, %s", spec.name, java.version, described(chosen))
    variables = environment(
        environ,
        spec,
        resolution.settings,
        cache=cache,
        home=run,
        temporary=run / "tmp",
        log_level=log_level,
    )
    return Command((str(java.launcher), "-f", str(config)), variables)


def stage(
    run: Path, resolution: Resolution, staged: Staged, chosen: Mode, address: str, *, secure: bool
) -> Path:
    """Write the staging folder and the server's own file into `run`; returns that file."""
    spec = resolution.spec
    store = run / "models"
    folder = store / spec.name
    for each in (folder, run / "tmp"):
        each.mkdir(parents=True)
    staged.write(folder)
    text = render(model_properties(spec, chosen, secure=secure))
    (folder / PROPERTIES).write_text(_comments(resolution.settings) + text)
    config = run / CONFIG
    config.write_text(render(server_properties(spec, resolution.settings, address, store)))
    return config


def described(chosen: Mode) -> str:
    """For people: how Java talks to the worker."""
    if chosen.asynchronous:
        return "it hands on each request by itself (async_mode)"
    if chosen.rolling_batch:
        return "it hands on all requests in steps of one batch (rolling_batch)"
    return "it hands a worker one request, or one batch, after the other"


def url(host: str, port: int) -> str:
    """Where the server listens, as it wants to be told."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_folder(port: int) -> Path:
    """A new, empty folder for the server at this port; that of an earlier one is removed.

    Its path is short: Java puts sockets there. Raises ConfigError where somebody else's is in the
    way.
    """
    folder = Path(tempfile.gettempdir(), f"lmi-{os.getuid()}-{port}")
    try:
        if folder.is_symlink() or (folder.exists() and folder.stat().st_uid != os.getuid()):
            want = "this is somebody else's: remove it, or set TMPDIR to another folder"
            raise ConfigError("TMPDIR", str(folder), "the environment", want)
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(_PRIVATE)
        folder.chmod(stat.S_IRWXU)
    except OSError as error:
        want = f"expected a place to write: {error.strerror or error}"
        raise ConfigError("TMPDIR", str(folder), "the environment", want) from error
    return folder


def _check_free(host: str, port: int) -> None:
    """Raise ConfigError for an address that can't be listened on: Java would say so much later."""
    where = f"{host}:{port}"
    if port == 0:
        want = "behind the DJL model server the port must be named"
        raise ConfigError("inference_address", where, "the address to listen on", want)
    try:
        with socket.create_server((host, port), family=_family(host)):
            pass
    except OSError as error:
        want = error.strerror or str(error)
        raise ConfigError("inference_address", where, "the address to listen on", want) from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _comments(settings: tuple[Setting, ...]) -> str:
    """Where each setting came from, for somebody who looks here. Secrets are masked."""
    lines = ["# Written by `lmi serve` for Java; the worker reads lmi.json. What was decided:"]
    for setting in settings:
        text = shown(setting).replace("\n", " ").replace("\r", " ")
        lines.append(f"#   {setting.key}={text}  ({setting.origin})")
    return "".join(f"{line}\n" for line in lines)
