"""Values of config.json's `quantization_config`, each checked as it is taken."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from lmi.core import ModelError

T = TypeVar("T", int, str, bool)

MARLIN: Final = "its weights are shuffled for the Marlin kernel of one kind of GPU"
# Layouts that no file should have been written in, and why they can't be read.
FOR_ONE_KERNEL: Final = {
    "marlin": MARLIN,
    "marlin_24": f"{MARLIN}, with two of four weights left out",
    "bitblas": "its weights are shuffled for one kernel of the library BitBLAS",
    "gptq_bitblas": "its weights are shuffled for one kernel of the library BitBLAS",
    "exllama": "its weights are shuffled for the ExLlama kernel of GPUs",
    "ipex": "its weights are shuffled for one kernel of the library IPEX",
    "qqq": "QQQ has scales of two levels",
    "gemv": "its weights are packed for one kernel of autoawq (GEMV)",
    "gemv_fast": "its weights are interleaved for one kernel of autoawq (GEMV-fast)",
    "llm-awq": "its weights are interleaved for one kernel of llm-awq",
}


class Settings:
    """One object of the configuration. where: what the messages call it."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self._values = values
        self._where = where

    def one_of(self, name: str, default: T | None, allowed: tuple[T, ...]) -> T:
        """A setting that must be one of these; unset it is `default`. Raises ModelError."""
        value: Any = self._values.get(name, default)
        if not any(value == one and type(value) is type(one) for one in allowed):
            raise self.error(name, value, " or ".join(map(str, allowed)))
        found: T = value
        return found

    def group_size(self, name: str, default: int = -1) -> int:
        """Inputs that share a scale; -1 for all of them. Raises ModelError."""
        value = self._values.get(name, default)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not (value == -1 or value > 0):
            raise self.error(name, value, "a whole number from 1, or -1 for all inputs")
        found: int = value
        return found

    def error(self, name: str, value: object, want: str) -> ModelError:
        """What is wrong with a setting, and what is read instead."""
        return ModelError(
            f"{self._where}: {name} {value!r} is not known to LMI-Dist: expected {want}"
        )

    def refused(self, name: str, value: object, why: str) -> ModelError:
        """A setting that is known, and why such a checkpoint can't be read."""
        return ModelError(
            f"{self._where}: {name} {value!r}: {why}; expected the checkpoint in the layout that "
            "its maker publishes for all kernels (gptq, gptq_v2, gemm or compressed-tensors)"
        )
