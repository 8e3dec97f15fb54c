"""A `ProcessEngine` whose core serves LoRA adapters: an `lmi.core.AdapterHost` too.

The worker registers and forgets, one after the other; what it did is known here when its answer
comes, by `poll`, and only then may a request name an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from itertools import count

from lmi.core import Adapter, Delta, EngineDead, EngineInfo
from lmi.dist.front import Front
from lmi.dist.job import Job
from lmi.dist.process import ProcessEngine
from lmi.dist.wire import AddAdapter, Answered, DropAdapter


class AdapterProcessEngine(ProcessEngine):
    """See `lmi.core.AdapterHost`; all calls come from the engine's one thread."""

    def __init__(self, job: Job, info: EngineInfo, front: Front) -> None:
        super().__init__(job, info, front)
        self._numbers = count(1)
        self._asked: dict[int, tuple[Future[None], Callable[[], object]]] = {}

    def register_adapter(self, adapter: Adapter, /) -> Future[None]:
        """Register or replace one; may be used once the future is done."""
        number = next(self._numbers)

        def done() -> None:
            self._front.adapters[adapter.name] = adapter

        return self._ask(AddAdapter(number, adapter), done)

    def unregister_adapter(self, name: str, /) -> Future[None]:
        """Forget one; live requests with it go on, new ones are refused from here on."""
        number = next(self._numbers)
        self._front.adapters.pop(name, None)
        return self._ask(DropAdapter(number, name), lambda: None)

    def adapters(self) -> Mapping[str, Adapter]:
        """The registered ones, by name."""
        return dict(self._front.adapters)

    def poll(self, timeout: float, /) -> Sequence[Delta]:
        """As every engine's; a death fails what was asked of the adapters too."""
        try:
            return super().poll(timeout)
        except EngineDead as error:
            self._fail_all(error)
            raise

    def close(self) -> None:
        """As every engine's."""
        super().close()
        self._fail_all(EngineDead(f"{self._job.name} is closed"))

    def _ask(self, message: AddAdapter | DropAdapter, done: Callable[[], object]) -> Future[None]:
        future: Future[None] = Future()
        if self._dead is not None:
            future.set_exception(self._dead)
            return future
        self._asked[message.number] = (future, done)
        self._job.send(message)
        return future

    def _answered(self, answer: Answered) -> None:
        future, done = self._asked.pop(answer.number)
        if answer.error is not None:
            future.set_exception(answer.error.exception())
        else:
            done()
            future.set_result(None)

    def _fail_all(self, error: EngineDead) -> None:
        asked, self._asked = self._asked, {}
        for future, _ in asked.values():
            future.set_exception(error)
