"""From a ModelSpec to what a front serves: a session over an engine, or over a handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from lmi import engines
from lmi.config.spec import ModelSpec
from lmi.core import EngineDead
from lmi.custom import Seat, load_function
from lmi.engines import BoundSpec
from lmi.launch.bind import bind
from lmi.launch.function import function_spec
from lmi.schemas import SchemaConfig
from lmi.session import (
    FunctionConfig,
    FunctionSession,
    Loaded,
    Progress,
    Served,
    Session,
    SessionConfig,
)
from lmi.text import ChatTemplate

Bind = Callable[[Progress], BoundSpec]


def binder(spec: ModelSpec, environ: Mapping[str, str], fetched: Path | None = None) -> Bind:
    """How the model's files come. fetched: the folder where they are already, if it still is."""

    def bound(progress: Progress) -> BoundSpec:
        if fetched is not None and fetched.is_dir():
            return BoundSpec(spec, fetched)
        return bind(spec, environ, progress)

    return bound


def make(
    spec: ModelSpec, bound: Bind, environ: Mapping[str, str], seat: Seat | None = None
) -> Served:
    """The model, not started yet. bound: called at each load, in a thread.

    seat: where a handler's only worker runs; None for as many as the configuration says.
    """
    if spec.code is not None:
        return FunctionSession(
            FunctionConfig(spec.name, spec.job_queue_size),
            lambda progress: load_function(function_spec(bound(progress), environ, seat), progress),
        )
    return Session(session_config(spec), lambda progress: _load(bound(progress), progress))


def _load(bound: BoundSpec, progress: Progress) -> Loaded:
    """The engine with what stands beside it. Raises LmiError."""
    chat = None if bound.path is None else ChatTemplate.load(bound.path, _template(bound.spec))
    return Loaded(engines.load(bound, progress), chat)


def _template(spec: ModelSpec) -> str | None:
    named = spec.options.get("chat_template")
    return None if named is None else str(named)


async def loaded(served: Served, spec: ModelSpec) -> None:
    """Wait until the model answers; raises the load's error, or EngineDead when it takes long."""
    limit = spec.model_loading_timeout
    try:
        async with asyncio.timeout(limit):
            await served.ready()
    except TimeoutError:
        raise EngineDead(
            f"{spec.name} was not ready within option.model_loading_timeout={limit} seconds; "
            f"it was at: {served.health().reason}"
        ) from None


def session_config(spec: ModelSpec) -> SessionConfig:
    """What the session is told."""
    return SessionConfig(
        model=spec.name,
        schema=SchemaConfig(
            form=spec.compat,
            tgi_compat=spec.tgi_compat,
            output_formatter=spec.output_formatter,
            strict_parameters=spec.strict_parameters,
        ),
        max_queue=spec.job_queue_size,
        predict_timeout=float(spec.predict_timeout),
        restart_limit=spec.retry_threshold,
    )
