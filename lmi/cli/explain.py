"""`lmi explain`: every option with its value, its origin and who reads it; secrets are masked."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lmi.cli.check import weights_of
from lmi.cli.failures import told
from lmi.cli.inputs import AsJson, Folder, FrontChoice, FrontOption, Sets, resolution

if TYPE_CHECKING:
    from lmi.config import Resolution, Setting

_PIPE_WIDTH = 200  # columns where the output is no terminal: wide enough not to cut values


def explain(
    folder: Folder = None,
    sets: Sets = None,
    front: FrontOption = FrontChoice.AUTO,
    as_json: AsJson = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also the options that nobody set, with their defaults.")
    ] = False,
) -> None:
    """Show each option: its value, where it came from, and who reads it.

    Secrets are masked. Examples:

    lmi explain examples/demo

    lmi explain --all --json /opt/ml/model
    """
    with told(as_json=as_json):
        resolved = resolution(folder, sets, front=front)
        settings = resolved.settings + (resolved.defaults if everything else ())
        if as_json:
            sys.stdout.write(json.dumps(document(resolved, settings), indent=2) + "\n")
        else:
            _print_table(resolved, settings)


def document(resolved: Resolution, settings: tuple[Setting, ...]) -> dict[str, object]:
    """What `--json` prints."""
    from lmi.config.present import record

    return {
        "engine": resolved.spec.engine,
        "reason": resolved.spec.reason,
        "weights": list(weights_of(resolved)),
        "settings": [record(setting) for setting in settings],
        "variables": dict(resolved.variables),
        "warnings": list(resolved.warnings),
    }


def _print_table(resolved: Resolution, settings: tuple[Setting, ...]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lmi.config.present import shown

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("option", "value", "origin", "read by"):
        table.add_column(heading, overflow="fold")
    for setting in settings:
        reader = setting.consumer or f"nobody: {setting.note}"
        table.add_row(*map(Text, (setting.key, shown(setting), setting.origin, reader)))
        for loser in setting.overridden:
            row = ("", shown(setting, loser.text), loser.origin, f"overridden by {setting.origin}")
            table.add_row(*map(Text, row), style="dim")
    for name, meaning in resolved.variables:
        table.add_row(*map(Text, (name, "set", "environment", meaning)))
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(width=width, highlight=False)
    console.print(table)
    console.print(Text(f"engine {resolved.spec.engine}: {resolved.spec.reason}"))
    for line in weights_of(resolved):
        console.print(Text(f"weights {line}"))
    for warning in resolved.warnings:
        console.print(Text(f"warning: {warning}"))
