"""The accelerators that this process may use, counted without importing a library of theirs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_NODE: Final = re.compile(r"nvidia\d+")


def visible_gpus(environ: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> int:
    """NVIDIA GPUs: those of CUDA_VISIBLE_DEVICES where it is set, else the device files."""
    named = environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return len([word for word in named.split(",") if word.strip() not in ("", "-1")])
    try:
        return sum(1 for entry in devices.iterdir() if _NODE.fullmatch(entry.name))
    except OSError:
        return 0
