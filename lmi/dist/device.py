"""Which device and number format a model runs in, and how much memory is free there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import torch

from lmi.dist.config import DistConfig
from lmi.dist.native.library import processor_flags

# Flags of /proc/cpuinfo that mean: bfloat16 products in hardware. Without one of them bfloat16 is
# several times slower than float32.
_BF16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})

_DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def choose_device(config: DistConfig) -> torch.device:
    """CUDA where there is one, unless the configuration says otherwise."""
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise config.error("device", "torch sees no CUDA device here: expected cpu or auto")
    return torch.device("cuda" if has_cuda and config.device != "cpu" else "cpu")


def choose_dtype(
    config: DistConfig, device: torch.device, checkpoint: torch.dtype | None
) -> torch.dtype:
    """The configuration's; for auto what `DistConfig` says."""
    if config.dtype != "auto":
        return _DTYPES[config.dtype]
    if device.type == "cuda":
        return checkpoint or torch.float16
    return torch.bfloat16 if cpu_multiplies_bf16() else torch.float32


def dtype_named(name: str | None) -> torch.dtype | None:
    """The dtype that config.json names, None for one that LMI-Dist does not compute in."""
    return _DTYPES.get(name or "")


def cpu_multiplies_bf16() -> bool:
    """Whether this processor has instructions for bfloat16 products."""
    return not _BF16_FLAGS.isdisjoint(processor_flags())


def free_memory(device: torch.device) -> int:
    """Bytes that can be taken on the device; on a host no more than its control group allows."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return min(_host_available(), _cgroup_left())


def _host_available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cgroup_left() -> int:
    root = Path("/sys/fs/cgroup")
    for limit, usage in (
        (root / "memory.max", root / "memory.current"),
        (root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes"),
    ):
        try:
            most, used = limit.read_text().strip(), usage.read_text().strip()
        except OSError:
            continue
        if most != "max":
            return max(0, int(most) - int(used))
    return 1 << 62
