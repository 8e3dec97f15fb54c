"""From a ModelSpec to what a front serves: a session over an engine, or over a handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, cast

from lmi import engines
from lmi.config.assemble import FORMATTERS
from lmi.config.spec import ModelSpec
from lmi.core import EngineDead, FunctionInfo
from lmi.custom import Hooks, HooksSpec, Seat, find_requirements, load_function, load_hooks
from lmi.engines import BoundSpec
from lmi.launch.bind import bind, bind_fetched
from lmi.launch.function import function_spec, properties
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
from lmi.text.chat import ContentFormat

Bind = Callable[[Progress], BoundSpec]

_CONTEXT: Final = "context"


def binder(spec: ModelSpec, environ: Mapping[str, str], fetched: Path | None = None) -> Bind:
    """How the model's files come. fetched: the folder where they are already, if it still is."""

    def bound(progress: Progress) -> BoundSpec:
        if fetched is not None and fetched.is_dir():
            return bind_fetched(spec, environ, fetched)
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
    hooks: list[Hooks | None] = []  # loaded with the first engine, and kept: their code runs once

    def load(progress: Progress) -> Loaded:
        found = bound(progress)
        if spec.hooks and not hooks:
            progress("loading model.py", 0, 0)
            hooks.append(load_hooks(hooks_spec(found, environ)))
        engine = engines.load(found, progress)
        return Loaded(engine, chat_template(found), next(iter(hooks), None))

    return Session(session_config(spec), load)


def chat_template(bound: BoundSpec) -> ChatTemplate | None:
    """The model's chat template, or the one that is configured. Raises ModelError."""
    options = bound.spec.options
    named = options.get("chat_template")
    folder = bound.path or bound.spec.folder  # an engine without a model may still have a template
    if folder is None and named is None:
        return None
    form = cast("ContentFormat", options.get("chat_template_content_format", "auto"))
    return ChatTemplate.load(folder or Path(), None if named is None else str(named), form)


def hooks_spec(bound: BoundSpec, environ: Mapping[str, str]) -> HooksSpec:
    """What the functions of a model.py beside an engine are told."""
    spec = bound.spec
    assert spec.folder is not None, "model.py stands in a folder"
    handler = spec.options.get("handler")
    return HooksSpec(
        folder=spec.folder,
        form=spec.compat,
        handler="handle" if handler is None else str(handler),
        output_formatter=own_formatter(spec),
        properties=properties(bound),
        tokenizer=bound.path,
        trust_remote_code=spec.trust_remote_code,
        requirements=find_requirements(spec.folder, environ),
    )


def own_formatter(spec: ModelSpec) -> str | None:
    """The output formatter that is a function of the model.py."""
    return None if spec.output_formatter in FORMATTERS else spec.output_formatter


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


def facts(served: Served) -> str:
    """What was loaded, for people; empty while nothing is."""
    info = served.info
    if info is None:
        return ""
    if isinstance(info, FunctionInfo):
        details = (("handler", info.name), ("workers", str(info.workers)), *info.details)
    elif any(name == _CONTEXT for name, _ in info.details):
        details = info.details
    else:
        details = ((_CONTEXT, f"{info.max_model_len} tokens"), *info.details)
    return ", ".join(f"{name} {value}" for name, value in details)


def _served_name(spec: ModelSpec) -> str:
    """What a request may call the model besides its folder's name and its hub id."""
    return str(spec.options.get("served_model_name", "lmi"))


def session_config(spec: ModelSpec) -> SessionConfig:
    """What the session is told."""
    return SessionConfig(
        model=spec.name,
        schema=SchemaConfig(
            form=spec.compat,
            tgi_compat=spec.tgi_compat,
            output_formatter=None if own_formatter(spec) else spec.output_formatter,
            strict_parameters=spec.strict_parameters,
        ),
        max_queue=spec.job_queue_size,
        predict_timeout=float(spec.predict_timeout),
        restart_limit=spec.retry_threshold,
        served_names=tuple(filter(None, (_served_name(spec), spec.model_id))),
    )
