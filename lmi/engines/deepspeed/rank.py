"""A rank's core: LMI-Dist's, over a model that DeepSpeed rebuilt."""

from __future__ import annotations

from functools import partial

import torch

from lmi.dist.collectives.base import Collective
from lmi.dist.collectives.choose import choose
from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore
from lmi.dist.engine import Progress
from lmi.dist.hosted import HostedModel, load_hosted
from lmi.dist.parallel.following import Follower
from lmi.dist.parallel.leading import LeadingCore
from lmi.dist.parallel.rank import core_of
from lmi.dist.place import Place
from lmi.engines.deepspeed.rebuild import DeepSpeed
from lmi.engines.deepspeed.settings import Settings
from lmi.engines.deepspeed.sums import join


def alone(
    config: DistConfig, own: Settings, progress: Progress, device: torch.device
) -> EngineCore:
    """The only rank. Raises ConfigError or ModelError; may take minutes."""
    return EngineCore(config, progress, load=loader(DeepSpeed(config, own, device)))


def one_of(
    config: DistConfig, own: Settings, progress: Progress, device: torch.device, place: Place
) -> LeadingCore | Follower:
    """This rank's share. Raises EngineDead too, where another rank fails."""
    collective = choose(config, place, device)
    sums = join(collective, place, device, own.sums, config.collective_timeout)
    library = DeepSpeed(config, own, device, collective, sums)
    return core_of(config, progress, collective, load=loader(library))


def loader(library: DeepSpeed) -> partial[HostedModel]:
    """What `EngineCore` loads this rank's model with."""
    return partial(_load, library)


def _load(
    library: DeepSpeed, config: DistConfig, progress: Progress, collective: Collective | None
) -> HostedModel:
    return load_hosted(config, progress, collective, library.title, library)
