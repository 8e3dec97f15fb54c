"""Where settings come from: properties files, the environment, flags. Reads, judges nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from os.path import isfile
from pathlib import Path
from types import MappingProxyType

from lmi.config.nearest import Names
from lmi.config.options import TABLE, Option, spellings
from lmi.config.present import MASK, looks_secret
from lmi.config.properties import load
from lmi.config.variables import VARIABLES, Layer, of_the_platform
from lmi.core import ConfigError

PROPERTIES = "serving.properties"
_PLAIN_NAME = re.compile(r"[A-Z_0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One value that somebody gave.

    key: as in serving.properties, known or not. written: as its user wrote it. origin:
    `serving.properties:3` or a variable's name. order: of two in one layer, the lower wins.
    """

    key: str
    text: str
    written: str
    origin: str
    layer: Layer
    order: int = 0


def from_file(path: Path, layer: Layer) -> list[Candidate]:
    """The assignments of a properties file; the last of a key's lines wins, as in Java."""
    return [
        Candidate(
            entry.key, entry.value, entry.key, f"{path.name}:{entry.line}", layer, -entry.line
        )
        for entry in load(path)
    ]


def from_flags(flags: Mapping[str, str]) -> list[Candidate]:
    """The `--set KEY=VALUE` of a command line."""
    return [Candidate(key, text, key, f"--set {key}", Layer.FLAG) for key, text in flags.items()]


def config_properties(environ: Mapping[str, str]) -> Path | None:
    """The server's own file, where the DJL model server looks for it; None where there is none."""
    home = environ.get("MODEL_SERVER_HOME")
    if not home:
        return None
    for path in (Path(home, "conf", "config.properties"), Path(home, "config.properties")):
        if isfile(path):
            return path
    return None


def from_environment(environ: Mapping[str, str]) -> list[Candidate]:
    """What variables set.

    A variable of our prefixes that means no option comes with a key that is unknown. Empty values
    count as unset, as in the reference.
    """
    found: list[Candidate] = []
    for name, text in sorted(environ.items()):
        if not text:
            continue
        variable = VARIABLES.get(name)
        if variable is not None:
            found += (
                Candidate(key, variable.read(text), name, name, variable.layer, variable.order)
                for key in variable.keys
            )
        elif not of_the_platform(name, text):
            candidate = _prefixed(name, text)
            if candidate is not None:
                found.append(candidate)
    return found


def _prefixed(name: str, text: str) -> Candidate | None:
    key = _regular_names().get(name)
    if name.startswith("SERVING_"):
        if key is None:
            key = "server." + name.removeprefix("SERVING_").lower()
            return Candidate(key, text, name, name, Layer.SERVING)
        layer = Layer.SERVING if spellings()[key].server else Layer.SERVING_DEFAULT
        return Candidate(key, text, name, name, layer)
    for prefix, start in (("OPTION_", "option."), ("ARGS_", "")):
        if name.startswith(prefix) and len(name) > len(prefix):
            rest = name.removeprefix(prefix)
            spelt = rest.lower() if _PLAIN_NAME.fullmatch(rest) else rest
            order = 0
            if key is None:
                key = start + spelt
            elif key != spellings()[key].key:
                order = 1
            return Candidate(key, text, name, name, Layer.OPTION, order)
    return None


@cache
def _regular_names() -> Mapping[str, str]:
    """The key of each regular variable: OPTION_DTYPE, ARGS_MINWORKERS, SERVING_BATCH_SIZE."""
    names: dict[str, str] = {}
    for key, option in spellings().items():
        if option.server:
            names[f"SERVING_{key.upper()}"] = key
        elif key.startswith("option."):
            names[f"OPTION_{key.removeprefix('option.').upper()}"] = key
        else:
            names[f"ARGS_{key.upper()}"] = key
    for key in _SERVING_DEFAULTS:
        names[f"SERVING_{key.upper()}"] = key
    names["OPTION_ENGINE"] = "engine"
    return MappingProxyType(names)


# Keys of the model whose default a SERVING_ variable gives.
_SERVING_DEFAULTS = (
    "job_queue_size",
    "batch_size",
    "max_batch_delay",
    "max_idle_time",
    "reserved_memory_mb",
    "load_on_devices",
)


def misspelt(environ: Mapping[str, str]) -> list[ConfigError]:
    """An error for each variable that means nothing and is one edit away from one that does."""
    problems = []
    for name, text in sorted(environ.items()):
        if not text or name in VARIABLES or _has_prefix(name) or of_the_platform(name, text):
            continue
        meant = known_variables().one_edit(name)
        if meant is not None:
            want = f"unknown variable; did you mean {meant}?"
            problems.append(ConfigError(name, _shown(meant, text), name, want))
    return problems


def _has_prefix(name: str) -> bool:
    return name.startswith(("OPTION_", "ARGS_", "SERVING_"))


def _shown(meant: str, text: str) -> str:
    secret = meant in VARIABLES and VARIABLES[meant].secret
    return MASK if secret or looks_secret(meant) else text


@cache
def known_variables() -> Names:
    """Every variable that means something here."""
    return Names(variable_names())


def variables_of(option: Option) -> tuple[str, ...]:
    """Every variable that sets an option, the regular one first."""
    named = (name for name, variable in VARIABLES.items() if option.key in variable.keys)
    return tuple(dict.fromkeys((option.variable, *named)))


@cache
def variable_names() -> tuple[str, ...]:
    """Every variable that means something here, likelier ones first."""
    regular = [option.variable for option in TABLE]
    return tuple(dict.fromkeys((*regular, *VARIABLES, *_regular_names())))
