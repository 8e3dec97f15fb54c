"""What models run on here: GPUs with their compute capability, or the processor; no torch, no CUDA.

NVIDIA's management library (NVML, part of the driver) tells the capability in milliseconds and
leaves the devices alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

from lmi.config.quantization import CPU, Hardware
from lmi.engines.devices import visible_gpus

_LIBRARY: Final = "libnvidia-ml.so.1"
_SUCCESS: Final = 0


def here() -> Hardware:
    """The GPUs, where there are any."""
    return Hardware("gpu", capability()) if visible_gpus() else CPU


def capability(load: Callable[[str], Any] = ctypes.CDLL) -> tuple[int, int] | None:
    """CUDA's compute capability of the least GPU of this machine, None where nobody says it."""
    try:
        library = load(_LIBRARY)
    except OSError:
        return None
    if library.nvmlInit_v2() != _SUCCESS:
        return None
    try:
        count = ctypes.c_uint()
        if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != _SUCCESS:
            return None
        found = [_of_device(library, index) for index in range(count.value)]
    finally:
        library.nvmlShutdown()
    return min((each for each in found if each is not None), default=None)


def _of_device(library: Any, index: int) -> tuple[int, int] | None:
    device, major, minor = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
    if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) != _SUCCESS:
        return None
    told = library.nvmlDeviceGetCudaComputeCapability(
        device, ctypes.byref(major), ctypes.byref(minor)
    )
    return (major.value, minor.value) if told == _SUCCESS else None
