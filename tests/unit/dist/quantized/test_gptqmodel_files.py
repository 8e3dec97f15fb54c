"""What gptqmodel, the keeper of GPTQ's and AWQ's formats, makes is read as it reads it itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.gptqmodel_files import KINDS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
# Theirs computes in float16.
_LOGITS_ERROR = 0.01


@pytest.mark.timeout(300)
def test_files_of_gptqmodel_mean_here_what_they_mean_there(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.support.gptqmodel_files", str(tmp_path), *KINDS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        check=True,
        capture_output=True,
        timeout=280,
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found) == list(KINDS)
    for name, compared in found.items():
        assert compared["layers"] == 7, name
        assert compared["difference"] == 0.0, name
        assert compared["logits"] < _LOGITS_ERROR, (name, compared)
