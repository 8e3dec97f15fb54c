"""Which kernels a device gets: the fastest that are there and prove themselves on it."""

from __future__ import annotations

import logging
from typing import Final

import torch

from lmi.dist.config import DistConfig
from lmi.dist.cores import available_cores
from lmi.dist.kernels.base import Kernels
from lmi.dist.kernels.plain import PlainKernels
from lmi.dist.kernels.self_test import differences
from lmi.dist.native.library import LibraryMissing, load_library, set_threads

log = logging.getLogger(__name__)

_OLDEST_GPU: Final = (8, 0)  # compute capability of Ampere, the oldest that Triton supports


@torch.inference_mode()
def choose_kernels(config: DistConfig, device: torch.device, dtype: torch.dtype) -> Kernels:
    """The configuration's, or for auto the best that work here.

    Raises ConfigError where what the configuration names can't run here.
    """
    wanted = config.kernels
    own = "triton" if device.type == "cuda" else "cpu"
    if wanted == "plain":
        return PlainKernels(dtype)
    if wanted not in ("auto", own):
        raise config.error("kernels", f"a model on {device.type} takes auto, {own} or plain")
    try:
        kernels = _cpu(config) if own == "cpu" else _triton(dtype, device)
    except LibraryMissing as missing:
        why = str(missing)
    else:
        wrong = differences(kernels, dtype, device)
        if not wrong:
            return kernels
        why = f"{kernels.name} differ from plain torch in {', '.join(wrong)}"
    if wanted != "auto":
        raise config.error("kernels", why)
    log.warning("computing with plain torch, which is several times slower: %s", why)
    return PlainKernels(dtype)


def widens(config: DistConfig, device: torch.device) -> bool:
    """Whether the kernels will widen narrow weights on their way into registers, at no cost."""
    if device.type != "cpu" or config.kernels not in ("auto", "cpu"):
        return False
    try:
        load_library()
    except LibraryMissing:
        return False
    return True


def computing_threads(config: DistConfig) -> int:
    """Threads of this rank on a CPU: the configuration's, else the cores that it may use."""
    return config.threads or available_cores()


def _cpu(config: DistConfig) -> Kernels:
    from lmi.dist.kernels.cpu import CpuKernels

    kernels = CpuKernels()
    set_threads(computing_threads(config))
    # What is left to torch between our operations is small: a second pool of threads that spins for
    # work would only take the cores from ours.
    torch.set_num_threads(1)
    return kernels


def _triton(dtype: torch.dtype, device: torch.device) -> Kernels:
    if torch.cuda.get_device_capability(device) < _OLDEST_GPU:
        raise LibraryMissing("Triton's matrix products need a GPU of compute capability 8.0")
    from lmi.dist.kernels.triton import TritonKernels

    return TritonKernels(dtype, device)
