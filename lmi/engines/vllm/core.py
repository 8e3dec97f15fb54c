"""vLLM as a core of `lmi.dist`: requests of several choices in, events out. Lives in the worker."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmi.core import EngineDead, EngineInfo, OutOfMemory
from lmi.dist.engine import Progress, silent
from lmi.dist.foreign import ForeignConfig
from lmi.dist.messages import CoreEvent, CoreRequest, CoreStats
from lmi.engines.vllm.events import Speaker

if TYPE_CHECKING:
    from lmi.engines.vllm.stepped import Stepped

log = logging.getLogger("lmi.engines.vllm")


def make_core(config: ForeignConfig, progress: Progress = silent) -> VllmCore:
    """Load the model that the words of the arguments say. Raises ConfigError or ModelError."""
    progress("importing vllm", 0, 0)
    from lmi.engines.vllm.stepped import OUT_OF_MEMORY, Stepped

    try:
        engine = Stepped(config.arguments["words"], progress)
    except OUT_OF_MEMORY as error:
        raise OutOfMemory(f"not enough memory to load the model: {error}") from error
    adapters = config.arguments.get("adapters")
    if adapters is None:
        return VllmCore(engine, OUT_OF_MEMORY)
    from lmi.engines.vllm.adapter_core import AdapterVllmCore

    base, slots, max_rank = Path(adapters["base"]), adapters["slots"], adapters["max_rank"]
    return AdapterVllmCore(engine, OUT_OF_MEMORY, base=base, slots=slots, max_rank=max_rank)


class VllmCore:
    """See `lmi.dist.engine.Core`. out_of_memory: the exceptions that mean it."""

    def __init__(self, engine: Stepped, out_of_memory: tuple[type[BaseException], ...]) -> None:
        self._engine = engine
        self._out_of_memory = out_of_memory
        self._live: dict[str, Speaker] = {}
        self._names: dict[int, tuple[str, ...]] = {}
        self._news: list[CoreEvent] = []  # for the next step to bring
        self._dead: EngineDead | None = None
        self._info = engine.info()

    @property
    def info(self) -> EngineInfo:
        """Fixed facts of the loaded model."""
        return self._info

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return bool(self._news) or self._dead is not None or self._engine.has_work

    def add(self, request: CoreRequest, /) -> None:
        """Queue a request. Raises BadPayload for what vLLM refuses; nothing of it runs then."""
        self._add(request, None)

    def _add(self, request: CoreRequest, adapter: Any) -> None:
        names = tuple(f"{request.id}.{choice}" for choice in range(request.choices))
        self._engine.add(names, request, adapter)
        for choice, name in enumerate(names):
            self._live[name] = Speaker(request, choice)
        self._names[request.id] = names

    def cancel(self, request_id: int, choice: int | None = None, /) -> None:
        """End a request, or one choice of it, before the next step."""
        names = self._names.get(request_id, ())
        asked = names if choice is None else names[choice : choice + 1]
        doomed = [name for name in asked if name in self._live]
        if doomed:
            self._engine.abort(doomed)
        for name in doomed:
            self._news.append(self._live[name].cancelled())
            self._end(name)

    def step(self) -> list[CoreEvent]:
        """One step of vLLM. Raises EngineDead after the live requests were told why."""
        if self._dead is not None:
            raise self._dead
        events, self._news = self._news, []
        try:
            outputs = self._engine.step()
        except self._out_of_memory as error:
            # The scheduler has counted tokens that the model did not compute: it can't go on.
            log.exception("vLLM ran out of memory")
            self._dead = EngineDead(f"vLLM ran out of memory: {error}")
            told = OutOfMemory("the engine ran out of memory")
            return events + [speaker.failed(told) for speaker in self._live.values()]
        for output in outputs:
            speaker = self._live.get(output.request_id)
            if speaker is not None and speaker.hear(output, events):
                self._end(output.request_id)
        return events

    def stats(self) -> CoreStats:
        """The load now."""
        return self._engine.stats()

    def close(self) -> None:
        """End vLLM's processes, if any, and give its memory back. Idempotent."""
        self._engine.close()

    def _end(self, name: str) -> None:
        speaker = self._live.pop(name)
        self._engine.over(name)
        request_id = speaker.request.id
        if not any(other in self._live for other in self._names[request_id]):
            self._over(request_id)

    def _over(self, request_id: int) -> None:
        """The last choice of a request has ended."""
        del self._names[request_id]
