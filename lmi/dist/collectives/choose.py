"""Which means the ranks of a job exchange numbers by: decided once, by all of them together."""

from __future__ import annotations

import logging

import torch

from lmi.dist.collectives.base import Collective, Place
from lmi.dist.collectives.process_group import ProcessGroup
from lmi.dist.config import DistConfig

log = logging.getLogger(__name__)


def choose(config: DistConfig, place: Place, device: torch.device) -> Collective:
    """Meet the other ranks and agree with them; every rank gets the same kind.

    device: of the model's tensors on this rank. Raises EngineDead when the ranks do not all come.
    """
    group = ProcessGroup(place, device, config.collective_timeout, "custom_all_reduce is off")
    if place.rank == 0:
        log.info("%d ranks exchange by %s: %s", group.size, group.name, group.reason)
    return group
