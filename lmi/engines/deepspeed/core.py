"""What a worker makes: its environment first, then the core of its rank.

DeepSpeed looks at the environment once, when it is imported, and transformers imports it too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from typing import Any

import torch

from lmi.dist.config import DistConfig
from lmi.dist.device import choose_device
from lmi.dist.engine import Core, Progress, silent
from lmi.dist.parallel.following import Follower
from lmi.dist.parallel.rank import device_of
from lmi.dist.place import ALONE, Place
from lmi.engines.deepspeed.settings import Settings


def load(
    config: DistConfig,
    progress: Progress = silent,
    place: Place = ALONE,
    *,
    settings: Mapping[str, Any],
) -> Core | Follower:
    """Load a model, or this rank's share of it. settings: `Settings.plain`.

    Raises ConfigError, ModelError, or EngineDead where another rank fails; may take minutes.
    """
    own = Settings.of(settings)
    device = choose_device(config)
    settle(place, device, os.environ)
    from lmi.engines.deepspeed import rank

    if place.size == 1:
        return rank.alone(config, own, progress, device)
    return rank.one_of(config, own, progress, device_of(config, place), place)


def settle(place: Place, device: torch.device, environment: MutableMapping[str, str]) -> None:
    """Set what DeepSpeed reads of the device and of a rank's place.

    LOCAL_SIZE too, without which its operator for sums is a segmentation fault (see `sums`).
    """
    environment.setdefault("DS_ACCELERATOR", device.type)
    if place.size > 1:
        environment["RANK"] = environment["LOCAL_RANK"] = str(place.rank)
        environment["WORLD_SIZE"] = environment["LOCAL_SIZE"] = str(place.size)
