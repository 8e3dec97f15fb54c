"""Which means the ranks of a job exchange numbers by: decided once, by all of them together."""

from __future__ import annotations

import logging

import torch

from lmi.dist.collectives.base import Collective
from lmi.dist.collectives.native import RanksLibrary
from lmi.dist.collectives.process_group import ProcessGroup
from lmi.dist.collectives.self_test import self_test
from lmi.dist.collectives.shared_memory import SharedMemory
from lmi.dist.collectives.symmetric_memory import use_symmetric_memory
from lmi.dist.config import DistConfig
from lmi.dist.native.library import LibraryMissing, load_library
from lmi.dist.place import Place

log = logging.getLogger(__name__)


def choose(config: DistConfig, place: Place, device: torch.device) -> Collective:
    """Meet the other ranks and agree with them; every rank gets the same kind.

    device: of the model's tensors on this rank. Never fails because of a means of our own: torch's
    takes its place, and the log says why. Raises EngineDead when the ranks do not all come.
    """
    group = ProcessGroup(place, device, config.collective_timeout)
    chosen: Collective = group
    if not config.custom_all_reduce:
        group.reason = "custom_all_reduce is off"
    elif device.type == "cuda":
        why = use_symmetric_memory(group, device)
        group.name = "nccl" if why else "symmetric memory"
        group.reason = why or "the GPUs see each other's memory"
    else:
        own = _shared_memory(group)
        if isinstance(own, str):
            group.reason = own
        else:
            chosen = own
    if place.rank == 0:
        log.info("%d ranks exchange by %s: %s", chosen.size, chosen.name, chosen.reason)
    return chosen


def _shared_memory(group: ProcessGroup) -> Collective | str:
    if not group.one_host:
        return "the ranks are on different hosts"
    library: RanksLibrary | None = None
    trouble: str | None = None
    try:
        library = RanksLibrary(load_library())
    except LibraryMissing as missing:
        trouble = str(missing)
    why = group.agree(trouble)
    if why is not None or library is None:
        return why or "no library"
    joined = SharedMemory.join(library, group)
    if isinstance(joined, str):
        return joined
    if (why := group.agree(self_test(joined))) is not None:
        joined.leave()
        return why
    return joined
