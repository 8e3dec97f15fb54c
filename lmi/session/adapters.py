"""LoRA adapters of a session: registered by API while the model runs, and again after a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Protocol, runtime_checkable

from lmi.core import Adapter, AdapterHost, Engine, EngineError, LmiError, RequestError

log = logging.getLogger("lmi.session")


class LoraNotEnabled(RequestError):
    """The model serves no adapters."""

    code = 400


@runtime_checkable
class Adapters(Protocol):
    """A Served whose engine may serve adapters."""

    def adapters(self) -> Mapping[str, Adapter]:
        """The registered ones, by name. Raises LoraNotEnabled."""

    async def register_adapter(self, adapter: Adapter, /) -> None:
        """Register or replace one. Raises LoraNotEnabled, UnknownAdapter, BadPayload, OutOfMemory.

        It is there for every request that is accepted afterwards, also by an engine that comes
        after this one.
        """

    async def unregister_adapter(self, name: str, /) -> None:
        """Forget one; live requests with it go on. Raises LoraNotEnabled, UnknownAdapter."""


class AdapterDesk:
    """What was asked of one engine after another. patience: seconds to wait for an engine."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._host: AdapterHost | None = None
        self._added: dict[str, Adapter] = {}
        self._removed: set[str] = set()

    @property
    def known(self) -> Mapping[str, Adapter]:
        """The registered ones; empty where there can be none."""
        return {} if self._host is None else self._host.adapters()

    def adapters(self) -> Mapping[str, Adapter]:
        """See `Adapters`."""
        return self._needed().adapters()

    async def register(self, adapter: Adapter) -> None:
        """See `Adapters.register_adapter`."""
        await self._wait(self._needed().register_adapter(adapter), adapter.name)
        self._added[adapter.name] = adapter
        self._removed.discard(adapter.name)

    async def unregister(self, name: str) -> None:
        """See `Adapters.unregister_adapter`."""
        await self._wait(self._needed().unregister_adapter(name), name)
        self._added.pop(name, None)
        self._removed.add(name)

    async def attach(self, engine: Engine) -> None:
        """A new engine: bring it to where the last one was. What fails there is said in the log."""
        host = self._host = engine if isinstance(engine, AdapterHost) else None
        if host is None:
            return
        for name in self._removed & host.adapters().keys():
            await self._try(host.unregister_adapter(name), name)
        for name, adapter in self._added.items():
            await self._try(host.register_adapter(adapter), name)

    def detach(self) -> None:
        """The engine is gone."""
        self._host = None

    def _needed(self) -> AdapterHost:
        if self._host is None:
            raise LoraNotEnabled("LoRA is not enabled.")
        return self._host

    async def _try(self, done: Future[None], name: str) -> None:
        try:
            await self._wait(done, name)
        except LmiError as error:
            log.error("adapter %s is lost with the engine that had it: %s", name, error)

    async def _wait(self, done: Future[None], name: str) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.wrap_future(done)
        except TimeoutError:
            raise EngineError(
                f"adapter {name!r}: the engine did not answer within {self._patience:g} s"
            ) from None
