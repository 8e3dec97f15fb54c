"""What a body is read against: the model as it is loaded at the moment."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lmi.text import ChatTemplate


@dataclass(frozen=True, slots=True)
class Serving:
    """model: its name, shown in replies. names: what else a request may call it. chat: its chat
    template, None where it has none. adapters: the names of those that are registered. adapter: the
    one that the query names."""

    model: str = "model"
    names: Collection[str] = ()
    chat: ChatTemplate | None = None
    adapters: Collection[str] = ()
    adapter: str | None = None
