"""A scripted core of another library, with adapters: their names decide what becomes of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from lmi.core import Adapter, OutOfMemory, UnknownAdapter
from lmi.dist import DistConfig
from lmi.dist.foreign import ForeignConfig
from tests.support.scripted_core import ScriptedCore

FULL, DEADLY = "full", "deadly"  # names of adapters


class AdapterCore(ScriptedCore):
    """Registers anything but these two."""

    def __init__(self, config: DistConfig) -> None:
        super().__init__(config)
        self._names: set[str] = set()

    def register_adapter(self, adapter: Adapter, /) -> None:
        if adapter.name == FULL:
            raise OutOfMemory("no slot is left")
        if adapter.name == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        self._names.add(adapter.name)

    def unregister_adapter(self, name: str, /) -> None:
        if name not in self._names:
            raise UnknownAdapter(f"adapter {name!r} is not registered")
        self._names.remove(name)


def make_core(config: ForeignConfig, progress: Callable[[str, int, int], None]) -> AdapterCore:
    """Fails unless the environment came before it."""
    assert os.environ["SCRIPTED"] == "yes"
    progress(config.arguments["phase"], 1, 1)
    return AdapterCore(DistConfig(config.tokenizer))
