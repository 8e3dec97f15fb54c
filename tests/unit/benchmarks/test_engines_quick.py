"""The comparison as a user runs it, on a tiny model: our engine and its reference agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LIMIT_SECONDS = 240


@pytest.mark.slow
def test_a_quick_comparison_ends_in_a_table_and_a_file_of_equal_answers(tmp_path: Path) -> None:
    file = tmp_path / "engines.json"
    command = [sys.executable, "-m", "benchmarks.engines", "--quick", "--threads", "1"]
    command += ["--concurrency", "1,3", "--repeats", "1", "--json", str(file)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(file.read_text())
    assert found["absents"] == []
    digests: dict[str, list[str]] = {}
    for one in found["rounds"]:
        digests.setdefault(one["subject"], []).extend(one["digests"])
    assert digests.keys() == {"lmi-dist", "generate"}
    assert digests["lmi-dist"] == digests["generate"]
    assert len(digests["generate"]) == 1 + 3
    assert "| lmi-dist |" in file.with_suffix(".md").read_text()
    assert "concurrency 3" in ran.stdout
