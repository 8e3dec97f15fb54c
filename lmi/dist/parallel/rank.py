"""One rank of a job: its share of the model, and its part in the turns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from lmi.dist.collectives.base import Collective
from lmi.dist.collectives.choose import choose
from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore
from lmi.dist.device import choose_device
from lmi.dist.engine import Progress
from lmi.dist.model import PagedModel
from lmi.dist.parallel.following import Follower
from lmi.dist.parallel.leading import LeadingCore
from lmi.dist.parallel.samplers import FollowingSampler, LeadingSampler
from lmi.dist.place import Place
from lmi.dist.runtimes import load_model


def load(config: DistConfig, progress: Progress, place: Place) -> LeadingCore | Follower:
    """Meet the other ranks and load this rank's share; returns when all ranks have.

    Raises ConfigError, ModelError, or EngineDead where another rank fails; may take minutes.
    """
    return core_of(config, progress, choose(config, place, device_of(config, place)))


def device_of(config: DistConfig, place: Place) -> torch.device:
    """The device of this rank alone, made the current one. Raises ConfigError."""
    device = choose_device(config)
    if device.type == "cuda":
        gpus = torch.cuda.device_count()
        if gpus < place.size:
            raise config.error("tensor_parallel", f"each rank needs a GPU; expected 1 to {gpus}")
        device = torch.device("cuda", place.rank)
        torch.cuda.set_device(device)
    return device


def core_of(
    config: DistConfig,
    progress: Progress,
    collective: Collective,
    load: Callable[[DistConfig, Progress, Collective | None], PagedModel] = load_model,
) -> LeadingCore | Follower:
    """This rank's share, for ranks that have met. load: gives it. Raises as this module's `load`
    does."""
    leads = collective.rank == 0
    sampler = partial(LeadingSampler if leads else FollowingSampler, collective)
    core = EngineCore(config, progress, collective=collective, sampler=sampler, load=load)
    return LeadingCore(core, collective) if leads else Follower(core, collective)
