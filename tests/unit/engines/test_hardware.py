"""The least GPU decides, and a driver that says nothing is no error."""

from __future__ import annotations

from typing import Any

from lmi.engines.hardware import capability


class Driver:
    """NVML's functions, as ctypes offers them. gpus: a capability each; None: it does not say."""

    def __init__(self, gpus: list[tuple[int, int] | None], init: int = 0) -> None:
        self.gpus = gpus
        self.init = init
        self.open = False

    def nvmlInit_v2(self) -> int:
        self.open = self.init == 0
        return self.init

    def nvmlShutdown(self) -> int:
        self.open = False
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = len(self.gpus)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, device: Any) -> int:
        device._obj.value = index + 1
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, device: Any, major: Any, minor: Any) -> int:
        found = self.gpus[device.value - 1]
        if found is None:
            return 3
        major._obj.value, minor._obj.value = found
        return 0


def test_the_least_gpu_counts_and_the_library_is_closed() -> None:
    driver = Driver([(9, 0), (7, 5), (8, 9)])
    assert capability(lambda name: driver) == (7, 5)
    assert not driver.open


def test_a_gpu_that_does_not_say_is_left_out() -> None:
    assert capability(lambda name: Driver([None, (8, 0)])) == (8, 0)
    assert capability(lambda name: Driver([None])) is None


def test_no_driver_is_no_error() -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    assert capability(missing) is None
    assert capability(lambda name: Driver([(9, 0)], init=9)) is None
