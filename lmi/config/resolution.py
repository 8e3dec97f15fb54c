"""What resolving gives: the ModelSpec, and for each setting its origin and its fate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from lmi.config.properties import render
from lmi.config.spec import ModelSpec


class Fate(StrEnum):
    """What becomes of a setting."""

    USED = "used"
    ADVISORY = "advisory"  # known, and not needed here
    USER = "user"  # passed on to the model's own code
    UNKNOWN = "unknown"  # only with option.unknown_options=warn: nobody reads it
    DEFAULT = "default"  # not set


@dataclass(frozen=True, slots=True)
class Overridden:
    """A value that lost against a higher one."""

    text: str
    origin: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One option that has a value.

    key: the documented spelling. text: the value as given. consumer: who reads it, "" for nobody.
    """

    key: str
    text: str
    value: object
    origin: str
    fate: Fate
    consumer: str = ""
    note: str = ""
    overridden: tuple[Overridden, ...] = ()
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Weights:
    """How the weights are held. method: what the engine is told, None for nothing.

    checkpoint: how the model's files are quantised, for people; empty where they are not, or are
    not at hand. note: what to know of it. needs: modules that must be importable for it.
    """

    method: str | None = None
    checkpoint: str = ""
    note: str = ""
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolution:
    """A configuration, decided.

    settings: what is set, then what was chosen automatically. warnings: one line each.
    variables: known variables of the environment that set no option, with what they mean here.
    """

    spec: ModelSpec
    settings: tuple[Setting, ...]
    defaults: tuple[Setting, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    weights: Weights = Weights()

    def properties(self) -> Mapping[str, str]:
        """The settings as one explicit serving.properties.

        Resolving it in the same folder gives the same spec.
        """
        entries = {
            setting.key: setting.text
            for setting in self.settings
            if setting.fate in (Fate.USED, Fate.ADVISORY, Fate.USER) and setting.key not in _CHOICE
        }
        return {**_CHOSEN[self.spec.engine], **entries}

    def render(self) -> str:
        """`properties` as text."""
        return render(self.properties())


# What the engine was chosen from; an explicit file says the outcome instead.
_CHOICE = frozenset({"engine", "option.rolling_batch"})
_CHOSEN: Mapping[str, Mapping[str, str]] = {
    "lmi-dist": {"engine": "lmi-dist"},
    "vllm": {"engine": "vLLM"},
    "trtllm": {"engine": "TensorRT-LLM"},
    "deepspeed": {"engine": "DeepSpeed", "option.rolling_batch": "deepspeed"},
    "python": {"engine": "Python", "option.rolling_batch": "disable"},
    "echo": {"engine": "echo"},
}
