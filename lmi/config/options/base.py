"""What the option table says about one option, and how to ask it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from lmi.config.kinds import Kind

ENGINES = ("lmi-dist", "vllm", "trtllm", "deepspeed", "python", "neuronx", "echo")
"""The engines by our name. `python` runs functions: handlers of users and tasks of transformers."""

ANY = "any"
"""In the table: whatever the engine (what the launcher and the server read themselves)."""

FIRST, LAST = "0.25", "0.36"
"""The LMI releases that the table covers."""

_NOTHING: Mapping[str, str] = MappingProxyType({})


class Verdict(StrEnum):
    """What becomes of a known option."""

    USED = "used"
    ADVISORY = "advisory"  # not needed here, for the reason that is given; the answers are the same
    REFUSED = "refused"


class Use(NamedTuple):
    """What an engine makes of an option, and why where it is not simply used."""

    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """An engine takes only some of an option's values: parsed ones; `why` ends a sentence."""

    values: tuple[object, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    key: as in serving.properties or config.properties. default: as text; None where nothing stands
    for it or the engine decides. aliases: older spellings of the key. used: engines that read it,
    or ANY. advisory, refused: reasons by engine, or ANY. limits: by engine. off: values that ask
    for nothing, which every engine honours. since, until: LMI releases. free: a model's own code
    may give it values of its own. runs_code: it says how that code is run, so the launcher reads it
    too. reader: who reads it where no engine does.
    """

    key: str
    kind: Kind
    doc: str
    default: str | None = None
    aliases: tuple[str, ...] = ()
    used: tuple[str, ...] = ()
    advisory: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    refused: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    limits: Mapping[str, Limit] = field(default_factory=dict)
    off: tuple[object, ...] = ()
    since: str = FIRST
    until: str = LAST
    ours: bool = False
    secret: bool = False
    server: bool = False
    free: bool = False
    runs_code: bool = False
    group: str = ""
    reader: str = "launcher"

    @property
    def short(self) -> str:
        """The key without `option.`."""
        return self.key.removeprefix("option.")

    @property
    def variable(self) -> str:
        """The regular environment variable: OPTION_DTYPE, SERVING_FEATURES, ARGS_MINWORKERS."""
        if self.server:
            return f"SERVING_{self.key.upper()}"
        if self.key == "engine":
            return "OPTION_ENGINE"
        prefix = "OPTION" if self.key.startswith("option.") else "ARGS"
        return f"{prefix}_{self.short.upper()}"

    @property
    def ours_to_read(self) -> bool:
        """Whether the launcher or the server reads it, also beside the model's own code."""
        return self.runs_code or (ANY in self.used and not self.free)

    def use(self, engine: str) -> Use:
        """What becomes of this option under an engine."""
        if engine in self.used:
            return Use(Verdict.USED)
        for name in (engine, ANY):
            if name in self.advisory:
                return Use(Verdict.ADVISORY, self.advisory[name])
            if name in self.refused:
                return Use(Verdict.REFUSED, self.refused[name])
        if ANY in self.used:
            return Use(Verdict.USED)
        if engine == "echo":
            return Use(Verdict.ADVISORY, "the echo engine runs no model")
        if not self.used:
            return Use(Verdict.REFUSED, "nothing here reads it")
        return Use(Verdict.REFUSED, f"{engine} has nothing like it; {' and '.join(self.used)} has")
