"""A core without a model for LMI-Dist's engines: tokens by arithmetic, trouble by script.

What a model's folder says in `script.json` happens in whatever process the core lives:

    load          "ModelError", "ConfigError", "bug", "die" or "hang": instead of loading
    die_at_step   the process kills itself in this step
    bug_at_step   an exception that nobody foresaw
    step_seconds  how long a step takes
    hang_on_close never returns from close
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from lmi.core import BadPayload, ConfigError, EngineError, EngineInfo, Finish, ModelError
from lmi.dist.config import DistConfig
from lmi.dist.messages import CoreDetail, CoreError, CoreEvent, CoreRequest, CoreStats

VOCAB: Final = 560
EOS: Final = 1  # "</s>" of the trained tokenizers
POISON: Final = 7  # a prompt that begins with it fails at its second token
REFUSED: Final = 8  # a prompt that begins with it is refused by the core
MAX_MODEL_LEN: Final = 4096


def token_at(request: CoreRequest, choice: int, place: int) -> int:
    """The token that a choice says: anything but the first special ones, EOS now and then."""
    value = (sum(request.prompt) * 31 + choice * 17 + place * place * 13 + place * 7) % 1009
    if value % 101 == 3 and not request.ignore_eos and place >= request.min_new_tokens:
        return EOS
    return 3 + value % (VOCAB - 3)


def logprob_at(choice: int, place: int) -> float:
    """Better for odd choices than for even ones."""
    return -1.0 / (1 + choice % 2 * 3 + place % 3)


class ScriptedCore:
    """A core that gives every running choice a token in each step."""

    def __init__(
        self, config: DistConfig, progress: Callable[[str, int, int], None] | None = None
    ) -> None:
        self._script = read_script(config.model)
        if progress is not None:
            for done in (0, 1, 2):
                progress("weights", done, 2)
        fail_to_load(self._script.get("load"), config)
        self._batch = config.max_batch
        self._live: dict[tuple[int, int], tuple[CoreRequest, int]] = {}
        self._news: list[CoreEvent] = []
        self._steps = 0
        self.cancels: list[tuple[int, int | None]] = []
        self.info = EngineInfo(
            "scripted", config.model.name, MAX_MODEL_LEN, VOCAB, config.max_batch, (("a", "b"),)
        )

    @property
    def has_work(self) -> bool:
        return bool(self._live or self._news)

    def add(self, request: CoreRequest, /) -> None:
        if request.prompt[0] == REFUSED:
            raise BadPayload("the core refuses this", field="inputs")
        for choice in range(request.choices):
            self._live[request.id, choice] = (request, 0)

    def cancel(self, request_id: int, choice: int | None = None, /) -> None:
        self.cancels.append((request_id, choice))
        for key in [k for k in self._live if k[0] == request_id and choice in (None, k[1])]:
            del self._live[key]
            self._news.append(CoreEvent(*key, None, Finish.CANCELLED))

    def step(self) -> list[CoreEvent]:
        self._steps += 1
        if self._steps == self._script.get("die_at_step"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._steps == self._script.get("bug_at_step"):
            raise RuntimeError("an unforeseen thing")
        time.sleep(self._script.get("step_seconds", 0.0))
        events, self._news = self._news, []
        for key in list(self._live)[: self._batch]:
            request, place = self._live[key]
            event = _event(request, key[1], place)
            events.append(event)
            if event.finish is None:
                self._live[key] = (request, place + 1)
            else:
                del self._live[key]
        return events

    def stats(self) -> CoreStats:
        running = min(len(self._live), self._batch)
        return CoreStats(running, len(self._live) - running, len(self._live), 99, steps=self._steps)

    def close(self) -> None:
        if self._script.get("hang_on_close"):
            threading.Event().wait()
        self._live.clear()


def read_script(folder: Path) -> dict[str, Any]:
    path = folder / "script.json"
    script: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return script


def fail_to_load(how: str | None, config: DistConfig) -> None:
    match how:
        case "ModelError":
            raise ModelError(f"{config.model}: these weights are corrupt")
        case "ConfigError":
            raise ConfigError("dtype", "float16", "the test", "expected float32")
        case "bug":
            raise RuntimeError("an unforeseen thing")
        case "die":
            os._exit(3)
        case "hang":
            threading.Event().wait()


def _event(request: CoreRequest, choice: int, place: int) -> CoreEvent:
    if request.prompt[0] == POISON and place == 1:
        detail = CoreDetail(error=CoreError.of(EngineError("no finite logits")))
        return CoreEvent(request.id, choice, None, Finish.ERROR, detail=detail)
    token = token_at(request, choice, place)
    finish = None
    if token in request.stop_token_ids:
        finish = Finish.STOP
    elif token == EOS:
        finish = Finish.EOS
    elif place + 1 == request.max_new_tokens:
        finish = Finish.LENGTH
    logprob, top = None, ()
    if request.logprobs is not None:
        logprob = logprob_at(choice, place)
        top = tuple((3 + (token + k) % 500, -float(k)) for k in range(request.logprobs))
    detail = None
    if request.prompt_logprobs and not choice and not place:
        ids = request.prompt
        detail = CoreDetail(prompt=tuple((t, -0.5 if n else None) for n, t in enumerate(ids)))
    return CoreEvent(request.id, choice, token, finish, logprob, top, detail)
