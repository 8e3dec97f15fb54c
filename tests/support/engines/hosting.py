"""An echo engine that hosts adapters: an answer by an adapter begins with the adapter's name."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace

from lmi.core import Adapter, GenerationRequest, LmiError, UnknownAdapter
from lmi.engines.echo import EchoConfig, EchoEngine


class HostingEngine(EchoEngine):
    """fail: what the next registration fails with. There is one adapter from the start, `first`."""

    def __init__(self, first: Adapter | None = None) -> None:
        super().__init__(EchoConfig())
        self._adapters = {} if first is None else {first.name: first}
        self.fail: LmiError | None = None

    def submit(self, request: GenerationRequest, /) -> None:
        name = request.adapter
        if name is not None:
            if name not in self._adapters:
                raise UnknownAdapter(f"adapter {name!r} is not registered", field="adapter")
            assert isinstance(request.prompt, str)
            request = replace(request, adapter=None, prompt=f"{name}: {request.prompt}")
        super().submit(request)

    def register_adapter(self, adapter: Adapter, /) -> Future[None]:
        done: Future[None] = Future()
        error, self.fail = self.fail, None
        if error is not None:
            done.set_exception(error)
        else:
            self._adapters[adapter.name] = adapter
            done.set_result(None)
        return done

    def unregister_adapter(self, name: str, /) -> Future[None]:
        done: Future[None] = Future()
        if self._adapters.pop(name, None) is None:
            done.set_exception(UnknownAdapter(f"adapter {name!r} is not registered"))
        else:
            done.set_result(None)
        return done

    def adapters(self) -> Mapping[str, Adapter]:
        return self._adapters
