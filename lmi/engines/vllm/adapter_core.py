"""vLLM as a core that serves LoRA adapters.

vLLM has `max_loras` slots and fills them by least recent use. Two things it would die of are kept
from it here. A bad adapter: each is checked and loaded between two steps, before a request with it
is queued, never in a step. Too many at once: beside pinned ones its scheduler would put more
adapters into a step than there are slots left; so requests whose adapter finds no slot wait here.

An adapter's name in vLLM has our number in it: vLLM knows cached prompts by name and folder, and
what is registered again under both may be other weights.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from msgspec import structs

from lmi.core import (
    Adapter,
    BadPayload,
    EngineError,
    Finish,
    OutOfMemory,
    RequestError,
    UnknownAdapter,
)
from lmi.dist.messages import CoreDetail, CoreError, CoreEvent, CoreRequest, CoreStats
from lmi.engines.vllm.adapter_files import base_shapes, check_adapter
from lmi.engines.vllm.core import VllmCore
from lmi.engines.vllm.stepped import Stepped, adapter_request


@dataclass(frozen=True, slots=True)
class _Known:
    """A registered adapter. told: what vLLM is told of it."""

    number: int
    pin: bool
    told: Any


class AdapterVllmCore(VllmCore):
    """See `lmi.dist.engine.AdapterCore`."""

    def __init__(
        self,
        engine: Stepped,
        out_of_memory: tuple[type[BaseException], ...],
        *,
        base: Path,
        slots: int,
        max_rank: int,
    ) -> None:
        """base: the model's folder. slots: adapters in one step. max_rank: of any of them."""
        super().__init__(engine, out_of_memory)
        self._base = base_shapes(base)
        self._slots = slots
        self._max_rank = max_rank
        self._numbers = count(1)
        self._known: dict[str, _Known] = {}
        self._used: dict[int, _Known] = {}  # by request id: of live requests
        self._waiting: deque[tuple[CoreRequest, _Known]] = deque()

    # Registration

    def register_adapter(self, adapter: Adapter, /) -> None:
        """Register or replace one; loads it, too, if it is to be preloaded."""
        if adapter.pin and not adapter.preload:
            raise BadPayload("pin=true needs preload=true", field="pin")
        check_adapter(adapter.name, adapter.source, self._base, self._max_rank)
        self._find_room(adapter)
        number = next(self._numbers)
        told = adapter_request(f"{adapter.name}#{number}", number, str(adapter.source))
        if adapter.preload:
            self._engine.load_adapter(told)
        if adapter.pin:
            self._engine.pin_adapter(number)
        old = self._known.get(adapter.name)
        self._known[adapter.name] = _Known(number, adapter.pin, told)
        if old is not None:
            self._leave(old)

    def unregister_adapter(self, name: str, /) -> None:
        """Forget one; its weights go when the last live request with it has ended."""
        old = self._known.pop(name, None)
        if old is None:
            raise UnknownAdapter(f"adapter {name!r} is not registered", field="name")
        self._leave(old)

    def _find_room(self, adapter: Adapter) -> None:
        """Raise OutOfMemory if it would leave some adapter without a slot for ever."""
        others = [known for name, known in self._known.items() if name != adapter.name]
        pinned = sum(known.pin for known in others) + adapter.pin
        shared = len(others) + 1 - pinned
        busy = len(self._busy())
        left = self._slots - pinned
        if left < (1 if shared else 0) or (adapter.pin and left < busy):
            raise OutOfMemory(
                f"no slot is left for adapter {adapter.name!r}: option.max_loras={self._slots}, "
                f"{pinned - adapter.pin} pinned, {busy} others in use"
            )

    def _leave(self, known: _Known) -> None:
        if known not in self._used.values():
            self._engine.remove_adapter(known.number)

    # Requests

    def add(self, request: CoreRequest, /) -> None:
        """Queue a request, or keep it until there is a slot for its adapter."""
        if request.prompt_logprobs and self._engine.dies_of_prompt_logprobs:
            raise BadPayload(
                "prompt_logprobs: vLLM has none on a CPU while option.enable_lora is true",
                field="prompt_logprobs",
            )
        if request.adapter is None:
            super().add(request)
            return
        known = self._known.get(request.adapter)
        if known is None:
            raise UnknownAdapter(f"adapter {request.adapter!r} is not registered", field="adapter")
        if known.pin or (not self._waiting and self._has_slot(known)):
            self._enter(request, known)
        else:
            self._waiting.append((request, known))

    def _busy(self) -> set[int]:
        """The adapters, other than pinned ones, that live requests use."""
        return {known.number for known in self._used.values() if not known.pin}

    def _has_slot(self, known: _Known) -> bool:
        busy = self._busy()
        pinned = sum(each.pin for each in self._known.values())
        return known.number in busy or len(busy) < self._slots - pinned

    def _enter(self, request: CoreRequest, known: _Known) -> None:
        self._engine.load_adapter(known.told)
        self._add(request, known.told)
        self._used[request.id] = known

    def cancel(self, request_id: int, choice: int | None = None, /) -> None:
        """End a request, or one choice of it, before the next step; also one that waits here."""
        super().cancel(request_id, choice)
        kept = [each for each in self._waiting if each[0].id != request_id]
        if len(kept) < len(self._waiting):
            request = next(each for each, _ in self._waiting if each.id == request_id)
            self._waiting = deque(kept)
            self._news += [
                CoreEvent(request_id, each, None, Finish.CANCELLED)
                for each in range(request.choices)
            ]

    def stats(self) -> CoreStats:
        """The load now; what waits here waits."""
        held = sum(request.choices for request, _ in self._waiting)
        found = super().stats()
        return structs.replace(found, waiting=found.waiting + held) if held else found

    def _over(self, request_id: int) -> None:
        super()._over(request_id)
        known = self._used.pop(request_id, None)
        if known is None:
            return
        if known not in self._known.values():
            self._leave(known)
        while self._waiting and self._has_slot(self._waiting[0][1]):
            request, wanted = self._waiting.popleft()
            try:
                self._enter(request, wanted)
            except (RequestError, EngineError) as error:
                detail = CoreDetail(error=CoreError.of(error))
                self._news += [
                    CoreEvent(request.id, choice, None, Finish.ERROR, detail=detail)
                    for choice in range(request.choices)
                ]
