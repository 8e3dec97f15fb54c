"""Adapters through Java: handlers of these names are asked to register, replace or remove one.

In async mode Java answers its client before we answer it, and keeps what we refused: a failure is
in our log, and in the answer to the first request that names the adapter.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from lmi.core import Call, LmiError, UnknownAdapter
from lmi.session import Adapters, LoraNotEnabled, Served, changed_adapter, wanted_adapter

log = logging.getLogger("lmi.djl")

REGISTER: Final = "register_adapter"
UPDATE: Final = "update_adapter"
UNREGISTER: Final = "unregister_adapter"
HANDLERS: Final = frozenset({REGISTER, UPDATE, UNREGISTER})


async def administer(call: Call, served: Served, folders: Sequence[Path]) -> str:
    """Do what the call's handler says; returns the line that says so. Raises LmiError.

    folders: where adapters may be read from.
    """
    # Parameters of the call are items, Java's own words are properties, and these count.
    words = {key: value.decode("utf-8", "replace") for key, value in call.content if key}
    words |= {key: call.properties[key] for key in ("name", "src") if key in call.properties}
    name = words.get("name", "")
    try:
        done = await _do(call.function, name, words, served, folders)
    except LmiError as error:
        log.error("%s %s: %s", call.function, name, error)
        raise
    line = f"Adapter {call.properties.get('alias') or name} {done}"
    log.info("%s", line)
    return line


async def _do(
    function: str, name: str, words: Mapping[str, str], served: Served, folders: Sequence[Path]
) -> str:
    if not isinstance(served, Adapters):
        raise LoraNotEnabled("LoRA is not enabled.")
    known = served.adapters().get(name)
    if function == REGISTER:
        await served.register_adapter(wanted_adapter(words, folders))
        return "registered"
    if known is None:
        raise UnknownAdapter(f"Adapter {name} is not registered.")
    if function == UNREGISTER:
        await served.unregister_adapter(name)
        return "unregistered"
    await served.register_adapter(changed_adapter(known, words, folders))
    return "updated"
