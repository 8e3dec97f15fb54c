"""`lmi check`: what would run, and every problem, without a download, a device or a model."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lmi.cli.failures import told
from lmi.cli.inputs import AsJson, Folder, FrontChoice, FrontOption, Sets, chosen_server, resolution

if TYPE_CHECKING:
    from lmi.config import ModelSpec, Resolution, Setting
    from lmi.launch.djl.installed import JavaServer


def check(
    folder: Folder = None,
    sets: Sets = None,
    front: FrontOption = FrontChoice.AUTO,
    as_json: AsJson = False,
) -> None:
    """Say what would run, or everything that is wrong. Exit code 0 or 2.

    Nothing is downloaded or loaded. Examples:

    lmi check examples/demo

    lmi check --set option.model_id=org/model --set option.dtype=bf16
    """
    with told(as_json=as_json):
        from lmi.launch.preflight import preflight

        resolved = resolution(folder, sets, front=front)
        preflight(resolved)
        java = chosen_server(front)
        if as_json:
            sys.stdout.write(json.dumps(document(resolved, java), indent=2) + "\n")
        else:
            sys.stdout.writelines(f"{line}\n" for line in lines(resolved, java))


def document(resolved: Resolution, java: JavaServer | None) -> dict[str, object]:
    """What `--json` prints."""
    from lmi.config.present import record

    spec = resolved.spec
    return {
        "ok": True,
        "name": spec.name,
        "engine": spec.engine,
        "reason": spec.reason,
        "model": spec.model,
        "folder": None if spec.folder is None else str(spec.folder),
        "front": "embedded" if java is None else "djl",
        "own code": list(own_code(spec)),
        "weights": {
            "method": resolved.weights.method,
            "checkpoint": resolved.weights.checkpoint or None,
            "note": resolved.weights.note or None,
        },
        "settings": [record(setting) for setting in resolved.settings],
        "notes": list(notes(resolved, java)),
        "warnings": list(resolved.warnings),
    }


def lines(resolved: Resolution, java: JavaServer | None) -> Iterator[str]:
    """The report in text."""
    from lmi.config.resolution import Fate

    spec = resolved.spec
    yield f"engine   {spec.engine}: {spec.reason}"
    origin = next((s.origin for s in resolved.settings if s.key == "option.model_id"), None)
    if spec.model_id is None:
        yield f"model    {spec.name}, in the folder itself"
    else:
        yield f"model    {spec.model_id}" + (f"  ({origin})" if origin else "")
    if spec.folder is not None:
        yield f"folder   {spec.folder}"
    for line in weights_of(resolved):
        yield f"weights  {line}"
    for line in own_code(spec):
        yield f"code     {line}"
    yield f"address  http://{spec.server.host}:{spec.server.port}"
    yield f"front    {front_of(java)}"
    for line in notes(resolved, java):
        yield f"         {line}"
    for fate, heading in (
        (Fate.USED, "set"),
        (Fate.ADVISORY, "set, and not needed here"),
        (Fate.USER, "for the model's own code"),
        (Fate.UNKNOWN, "unknown, ignored"),
    ):
        chosen = [setting for setting in resolved.settings if setting.fate is fate]
        if chosen:
            yield f"{heading}:"
        for setting in chosen:
            yield from _described(setting)
    for warning in resolved.warnings:
        yield f"warning: {warning}"


def weights_of(resolved: Resolution) -> Iterator[str]:
    """How the weights are held, where that is not as plain as they are."""
    from lmi.config.quantization.methods import BY_NAME

    weights = resolved.weights
    if weights.checkpoint:
        yield f"quantised: {weights.checkpoint}"
    elif weights.method is not None:
        known = BY_NAME.get(weights.method)
        yield weights.method + ("" if known is None else f": {known.doc}")
    if weights.note:
        yield weights.note


def own_code(spec: ModelSpec) -> Iterator[str]:
    """Whose code takes part in a request, beside an engine's."""
    from lmi.launch.function import stock_handler

    if spec.hooks:
        yield "model.py beside the engine: its formatters, and its handle, in the front's process"
    code = spec.code
    if code is None:
        return
    if spec.has_custom_handler:
        where = spec.entry_point or "model.py"
        yield f"{where}: its {code.handler} takes the requests, in processes of its own"
    else:
        yield f"{stock_handler(spec)}, a stock handler, takes the requests, in processes of its own"
    workers = code.workers
    if workers.most or workers.least:
        yield f"{workers.least or 1} to {workers.most or workers.least} workers on each device"
    if code.batch_size > 1:
        wait = f"{code.max_batch_delay * 1000:.0f} ms"
        yield f"batches of up to {code.batch_size} requests, gathered for {wait}"


def front_of(java: JavaServer | None) -> str:
    """Who takes the requests, for people."""
    if java is None:
        return "our own server"
    return f"the DJL model server {java.version} ({java.launcher})"


def notes(resolved: Resolution, java: JavaServer | None) -> Iterator[str]:
    """When /ping turns red for good, and what is different behind the DJL model server."""
    times = resolved.spec.retry_threshold
    what = "the engine" if resolved.spec.code is None else "a worker"
    yield f"{what} that dies is started again up to {times} times; then /ping stays red"
    if java is None:
        return
    from lmi.config.secure import is_secure
    from lmi.launch.djl.properties import mode
    from lmi.launch.djl.start import described

    secure = is_secure(os.environ)
    chosen = mode(resolved.spec, has_async_mode=java.has_async_mode, secure=secure)
    yield described(chosen)
    yield "a client that leaves is not noticed there: its answer is generated to the end"


def _described(setting: Setting) -> Iterator[str]:
    from lmi.config.present import shown

    by = f" -> {setting.consumer}" if setting.consumer else ""
    why = f": {setting.note}" if setting.note else ""
    yield f"  {setting.key}={shown(setting)}  ({setting.origin}){by}{why}"
    for loser in setting.overridden:
        yield f"    overrides {shown(setting, loser.text)}  ({loser.origin})"
