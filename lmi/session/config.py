"""What a session is told when it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lmi.core import Engine
from lmi.custom.hooks import Hooks
from lmi.schemas import SchemaConfig
from lmi.text import ChatTemplate

# Reports (phase, done, total) from any thread; a total of 0 means that the end is not known.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What comes of loading a model. chat: its chat template, None where it has none. hooks: the
    user's functions beside the engine, None where there are none."""

    engine: Engine
    chat: ChatTemplate | None = None
    hooks: Hooks | None = None


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """A model's serving options. Times are in seconds.

    model: its name in paths and metrics. max_queue: requests that may wait beyond those that run.
    predict_timeout: the engine counts as hung when it has requests and brings no token for so long.
    restart_limit: attempts to bring a dead engine back, 0 for none; the count starts anew once an
    engine has lived for restart_reset. restart_backoff: the first pause before an attempt; each
    further one is twice as long, up to restart_backoff_max. warm_up_prompt: what the real token is
    generated from before the model counts as ready. served_names: what else the field `model` of a
    request may say.
    """

    model: str
    schema: SchemaConfig = field(default_factory=SchemaConfig)
    max_queue: int = 1000
    predict_timeout: float = 120.0
    restart_limit: int = 3
    restart_backoff: float = 0.5
    restart_backoff_max: float = 30.0
    restart_reset: float = 300.0
    warm_up_prompt: str = "Hello"
    served_names: tuple[str, ...] = ()
