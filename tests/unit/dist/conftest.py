"""A tiny model per session, and a way to serve requests to their end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lmi.dist.messages import CoreEvent, CoreRequest

if TYPE_CHECKING:
    from lmi.dist.core import EngineCore


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with 4 layers and a vocabulary of 512; its end token is 2."""
    import torch

    from tests.support.models import make_model

    torch.set_num_threads(1)
    return make_model(tmp_path_factory.mktemp("llama") / "llama", "llama")


Serve = Callable[["EngineCore", Iterable[CoreRequest]], dict[int, list[CoreEvent]]]


@pytest.fixture
def serve() -> Serve:
    """Add all requests at once and step to the end: events by request id."""

    def run(core: EngineCore, requests: Iterable[CoreRequest]) -> dict[int, list[CoreEvent]]:
        for request in requests:
            core.add(request)
        events: dict[int, list[CoreEvent]] = defaultdict(list)
        while core.has_work:
            for event in core.step():
                events[event.request_id].append(event)
        return events

    return run
