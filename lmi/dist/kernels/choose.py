"""Which kernels a device gets."""

from __future__ import annotations

import torch

from lmi.dist.config import DistConfig
from lmi.dist.kernels.base import Kernels
from lmi.dist.kernels.plain import PlainKernels


def choose_kernels(config: DistConfig, device: torch.device, dtype: torch.dtype) -> Kernels:
    """The configuration's. Raises ConfigError where these can't run here."""
    if config.kernels in ("auto", "plain"):
        return PlainKernels(dtype)
    raise config.error("kernels", "expected auto or plain")
