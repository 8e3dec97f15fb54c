"""An engine that fails the requests which ask for it, and only these."""

from __future__ import annotations

from lmi.core import Delta, EngineError, Finish, GenerationRequest, Usage
from lmi.engines.echo import EchoConfig
from tests.support.engines.wrapped import Faulty

POISON = "!fail"


class Poisonable(Faulty):
    """A request whose prompt is POISON fails in its third step."""

    def __init__(self, config: EchoConfig) -> None:
        super().__init__(config)
        self._said: dict[int, int] = {}

    def submit(self, request: GenerationRequest, /) -> None:
        super().submit(request)
        if request.prompt == POISON:
            self._said[request.id] = 0

    def change(self, deltas: list[Delta]) -> list[Delta]:
        return [self._poisoned(d) if d.request_id in self._said else d for d in deltas]

    def _poisoned(self, delta: Delta) -> Delta:
        """Cancel what has said enough, and have its cancelled finish be an error."""
        if delta.finish is Finish.CANCELLED:
            said = self._said.pop(delta.request_id)
            usage = Usage(delta.usage.prompt_tokens if delta.usage else 0, said)
            error = EngineError("the request asked to fail")
            return delta._replace(finish=Finish.ERROR, error=error, usage=usage)
        self._said[delta.request_id] += len(delta.tokens)
        if self._said[delta.request_id] == 3:
            self.inner.cancel(delta.request_id)
        return delta
