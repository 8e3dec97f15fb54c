"""These tests run in a process of their own: see `tests/unit/dist/test_triton_kernels.py`.

Triton decides when it is imported whether it compiles or interprets, and torch may import it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if os.environ.get("TRITON_INTERPRET") == "1" else True
