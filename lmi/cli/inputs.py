"""What all commands take: FOLDER, --set and --json, and how they become a resolution."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lmi.config import Resolution
    from lmi.launch.djl.installed import JavaServer

PLATFORM_FOLDER = Path("/opt/ml/model")
"""Where SageMaker and the reference's image put the model."""

Folder = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FOLDER]",
        help=f"Folder of serving.properties. Default: {PLATFORM_FOLDER}, if something is in it; "
        "else the environment (HF_MODEL_ID, OPTION_...) says what to serve.",
        show_default=False,
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="An option as in serving.properties; beats every other source. Repeatable.",
        show_default=False,
    ),
]


class FrontChoice(StrEnum):
    """What --front may say."""

    AUTO = "auto"
    EMBEDDED = "embedded"
    DJL = "djl"


FrontOption = Annotated[
    FrontChoice,
    typer.Option(
        "--front",
        help="Who takes the requests: our own server, or the DJL model server in Java. auto: that "
        "one where it is installed.",
        envvar="LMI_FRONT",
        show_choices=True,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def resolution(
    folder: Path | None,
    sets: Iterable[str] | None,
    extra: Mapping[str, str] | None = None,
    *,
    front: FrontChoice,
) -> Resolution:
    """Resolves what a command was given.

    extra: options of the command's own flags, by key; they beat --set. Raises ConfigError.
    """
    from lmi.config import Front, resolve
    from lmi.config.vllm_arguments import installed_release
    from lmi.engines.hardware import here
    from lmi.launch.runnable import runnable

    flags = {**parse_sets(sets or ()), **(extra or {})}
    return resolve(
        folder or _platform_folder(),
        os.environ,
        flags,
        installed=runnable(),
        vllm=installed_release(),
        hardware=here(),
        front=Front.EMBEDDED if chosen_server(front) is None else Front.DJL,
    )


def chosen_server(choice: FrontChoice) -> JavaServer | None:
    """The DJL model server, where a command line means it; None for our own.

    Raises ConfigError where it is asked for and not installed.
    """
    from lmi.core import ConfigError
    from lmi.launch.djl.installed import HOME, find

    if choice is FrontChoice.EMBEDDED:
        return None
    server = find(os.environ)
    if server is None and choice is FrontChoice.DJL:
        want = f"the DJL model server is not installed: expected djl-serving on PATH, or {HOME}"
        raise ConfigError("--front", choice.value, "the command line", want)
    return server


def parse_sets(sets: Iterable[str]) -> dict[str, str]:
    """KEY=VALUE texts, by key; of a key that stands twice the last wins. Raises ConfigError."""
    from lmi.core import ConfigError

    found: dict[str, str] = {}
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError("--set", text, "the command line", "expected KEY=VALUE")
        found[key.strip()] = value
    return found


def _platform_folder() -> Path | None:
    if not PLATFORM_FOLDER.is_dir():
        return None
    filled = any(not child.name.startswith(".") for child in PLATFORM_FOLDER.iterdir())
    return PLATFORM_FOLDER if filled else None
