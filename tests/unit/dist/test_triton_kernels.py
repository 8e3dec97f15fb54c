"""The Triton kernels in Triton's interpreter, in a process of their own; these never skip."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "triton_interpreted"
ROOT = FOLDER.parents[3]
TIMEOUT = 900  # seconds; a quiet core takes one minute

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TIMEOUT + 30)]


def test_interpreted_kernels_give_the_plain_ones_numbers() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-rs", str(FOLDER)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"[1-9]\d* passed in .*", summary), summary
