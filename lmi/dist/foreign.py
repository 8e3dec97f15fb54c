"""What the core of another library is told: plain data, for a worker process of its own.

The worker knows nothing of that library. The maker of its core (`lmi.dist.wire.Start.core`) reads
the arguments; what must stand in the environment before the library is imported stands here too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct


class ForeignConfig(Struct, frozen=True, array_like=True):
    """How to load one model with another library.

    name: the library's, as it is called in errors. tokenizer: the folder that the front half reads
    it from. arguments: the library's own, of types that msgpack has. environment: variables to set
    in the worker, and in no other process.
    """

    name: str
    tokenizer: Path
    arguments: dict[str, Any]
    environment: dict[str, str]
    trust_remote_code: bool = False
