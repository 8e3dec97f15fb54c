"""`lmi check`: what would run, and every problem, without a download, a device or a model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lmi.cli.failures import told
from lmi.cli.inputs import AsJson, Folder, FrontChoice, FrontOption, Sets, resolution

if TYPE_CHECKING:
    from lmi.config import Resolution, Setting


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
        if as_json:
            sys.stdout.write(json.dumps(document(resolved), indent=2) + "\n")
        else:
            sys.stdout.writelines(f"{line}\n" for line in lines(resolved))


def document(resolved: Resolution) -> dict[str, object]:
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
        "settings": [record(setting) for setting in resolved.settings],
        "warnings": list(resolved.warnings),
    }


def lines(resolved: Resolution) -> Iterator[str]:
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
    yield f"address  http://{spec.server.host}:{spec.server.port}"
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


def _described(setting: Setting) -> Iterator[str]:
    from lmi.config.present import shown

    by = f" -> {setting.consumer}" if setting.consumer else ""
    why = f": {setting.note}" if setting.note else ""
    yield f"  {setting.key}={shown(setting)}  ({setting.origin}){by}{why}"
    for loser in setting.overridden:
        yield f"    overrides {shown(setting, loser.text)}  ({loser.origin})"
