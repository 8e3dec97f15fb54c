"""An engine inside a handler's process, for scripts that wrap a stock service around their code.

The engine is chosen and configured by the same options as anywhere. One thread drives it, since an
engine's calls must come from one; requests come from any thread or event loop, and run together.
Where no code of the user's stands in between, a session does this better: it supervises, measures
and restarts.
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from lmi import engines
from lmi.config import resolve
from lmi.config.options import spellings
from lmi.config.spec import ModelSpec
from lmi.core import Delta, Engine, EngineDead, LmiError
from lmi.engines import BoundSpec
from lmi.engines.hardware import here
from lmi.models import Store, default_cache
from lmi.schemas import ParsedRequest, SchemaConfig, Serving, parse
from lmi.text import ChatTemplate

log = logging.getLogger(__name__)

_STEP: Final = 0.02  # seconds: how long a new request waits at most for an engine at rest
_ENTRY_POINT: Final = "djl_python.huggingface"  # a stock one: the folder's model.py is the caller
_SKIPPED: Final = frozenset({"engine", "entryPoint", "entry_point", "handler", "model_dir"})

_ids = itertools.count(1)


class Answer:
    """The answer of one request while it comes: chunks of bytes, then the end or an error."""

    def __init__(self, parsed: ParsedRequest, wake: Callable[[], object]) -> None:
        self.parsed = parsed
        self.ids: tuple[int, ...] = ()
        self._wake = wake
        self._reply = parsed.reply()
        self._chunks: queue.SimpleQueue[bytes | LmiError | None] = queue.SimpleQueue()
        self._begun = False
        self.open = True

    def feed(self, delta: Delta) -> None:
        """A delta of one of its generations. For the engine's thread."""
        try:
            chunk = self._reply.feed(delta, self.ids.index(delta.request_id))
        except LmiError as error:
            self.fail(error)
            return
        self._put(chunk)
        if self._reply.done:
            self._end(None)

    def fail(self, error: LmiError) -> None:
        """End it with an error: as an event where it has begun. For the engine's thread."""
        if not self.open:
            return
        if self._begun:
            self._put(self._reply.fail(error))
            self._end(None)
        else:
            self._end(error)

    def chunks(self) -> Iterator[bytes]:
        """What comes, as it comes; raises the error of an answer that never began."""
        while True:
            item = self._chunks.get()
            if item is None:
                return
            if isinstance(item, LmiError):
                raise item
            yield item

    def take(self) -> Iterator[bytes | LmiError | None]:
        """What is there now; None is the end. For an event loop, after its `wake` was called."""
        while not self._chunks.empty():
            yield self._chunks.get()

    def _put(self, chunk: bytes) -> None:
        if chunk:
            self._begun = True
            self._chunks.put(chunk)
            self._wake()

    def _end(self, error: LmiError | None) -> None:
        self.open = False
        self._chunks.put(error)
        self._wake()


class InProcess:
    """One engine and the thread that drives it."""

    def __init__(
        self,
        engine: Engine,
        schema: SchemaConfig | None = None,
        serving: Serving | None = None,
    ) -> None:
        self.engine = engine
        self._schema = schema or SchemaConfig()
        self._serving = serving or Serving()
        self._inbox: queue.SimpleQueue[tuple[Answer, bool] | None] = queue.SimpleQueue()
        self._live: dict[int, Answer] = {}
        self._choices: dict[int, int] = {}  # of each live generation, those that have not ended
        self._dead: EngineDead | None = None
        self._thread = threading.Thread(target=self._drive, daemon=True, name="lmi-engine")
        self._thread.start()

    @classmethod
    def load(cls, properties: Mapping[str, Any], rolling_batch: str | None = None) -> InProcess:
        """The engine that a handler's properties name. Raises LmiError.

        rolling_batch: in place of the option of that name.
        """
        spec = spec_of(properties, rolling_batch)
        path: Path | None = None
        if engines.cards()[spec.engine].needs_model:
            path = Store(default_cache(os.environ)).get(spec.model, revision=spec.revision).path
        engine = engines.load(BoundSpec(spec, path), lambda phase, done, total: None)
        named = spec.options.get("chat_template")
        template = None if named is None else str(named)
        chat = None if path is None else ChatTemplate.load(path, template)
        schema = SchemaConfig(
            form=spec.compat, tgi_compat=spec.tgi_compat, output_formatter=spec.output_formatter
        )
        return cls(engine, schema, Serving(model=spec.name, chat=chat))

    @property
    def live(self) -> int:
        """Generations that the engine has not ended."""
        return len(self._live)

    def submit(
        self,
        body: bytes,
        headers: Mapping[str, str],
        wake: Callable[[], object] = lambda: None,
    ) -> Answer:
        """Take a request in. Raises BadPayload; what the engine refuses comes with the answer.

        headers: lower-case names. wake: called from the engine's thread when the answer has news.
        """
        answer = Answer(parse(body, headers, self._schema, serving=self._serving), wake)
        answer.ids = tuple(itertools.islice(_ids, len(answer.parsed.inputs)))
        self._inbox.put((answer, True))
        return answer

    def cancel(self, answer: Answer) -> None:
        """Nobody reads it any more. An answer that is over is left alone."""
        self._inbox.put((answer, False))

    def close(self) -> None:
        """End the engine; what is live fails."""
        self._inbox.put(None)
        self._thread.join()

    # On the engine's thread

    def _drive(self) -> None:
        while True:
            try:
                item = self._inbox.get(block=not self._live)
            except queue.Empty:
                self._step()
                continue
            if item is None:
                break
            answer, wanted = item
            if wanted:
                self._begin(answer)
            elif answer.open:
                for number in answer.ids:
                    self.engine.cancel(number)
        self._fail_all(EngineDead("the engine is closed"))
        self.engine.close()

    def _begin(self, answer: Answer) -> None:
        begun: list[int] = []
        try:
            if self._dead is not None:
                raise self._dead
            for request in answer.parsed.generations(answer.ids):
                self.engine.submit(request)
                begun.append(request.id)
                self._live[request.id] = answer
                self._choices[request.id] = request.sampling.n
        except LmiError as error:
            for number in begun:
                self.engine.cancel(number)
            answer.fail(error)

    def _step(self) -> None:
        try:
            deltas = self.engine.poll(_STEP)
        except EngineDead as error:
            log.error("the engine died: %s", error)
            self._dead = error
            self._fail_all(error)
            return
        for delta in deltas:
            answer = self._live[delta.request_id]
            if answer.open:
                answer.feed(delta)
            if delta.finish is not None:
                self._choices[delta.request_id] -= 1
                if not self._choices[delta.request_id]:
                    del self._live[delta.request_id], self._choices[delta.request_id]

    def _fail_all(self, error: LmiError) -> None:
        for answer in {*self._live.values()}:
            answer.fail(error)
        self._live.clear()
        self._choices.clear()


def spec_of(properties: Mapping[str, Any], rolling_batch: str | None = None) -> ModelSpec:
    """The configuration in a handler's properties; the user's own ones are left out.

    Raises ConfigErrors.
    """
    known = spellings()
    parameters = {
        name: str(value)
        for name, value in properties.items()
        if isinstance(value, str | int) and (name in known or f"option.{name}" in known)
    }
    parameters = {name: text for name, text in parameters.items() if name not in _SKIPPED}
    parameters.setdefault("model_id", str(properties.get("model_dir", "")))
    parameters["entryPoint"] = _ENTRY_POINT
    if rolling_batch is not None:
        parameters["rolling_batch"] = rolling_batch
    return resolve(
        None, {}, parameters=parameters, installed=engines.installed(), hardware=here()
    ).spec
