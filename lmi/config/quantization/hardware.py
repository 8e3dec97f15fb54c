"""What a model would run on, as far as it decides whether a quantisation works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Hardware:
    """capability: CUDA's compute capability of the least GPU, None where it is not known."""

    kind: Literal["cpu", "gpu"]
    capability: tuple[int, int] | None = None

    def __str__(self) -> str:
        if self.kind == "cpu":
            return "a CPU"
        known = self.capability
        return "a GPU" if known is None else f"a GPU of capability {known[0]}.{known[1]}"


CPU = Hardware("cpu")
