"""Half a minute of mixed, rude traffic: the short form of `make soak`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.serving import free_port, lmi_serve, served
from benchmarks.soak import soak
from benchmarks.soak_requests import Leaving
from tests.contract.dist_subjects import write_model

# On a busy machine the start alone takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROPERTIES = """\
engine=lmi-dist
option.dtype=fp32
option.threads=1
option.max_rolling_batch_size=16
"""


def test_every_accepted_request_has_one_answer_under_rude_traffic(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "serving.properties").write_text(PROPERTIES)
    port = free_port()
    with served(lmi_serve(folder, port), port) as server:
        soaked = asyncio.run(soak(server, seconds=30.0, concurrency=64, seed=1))
    assert soaked.wrong() == []
    assert soaked.tally.answered > 0
    assert soaked.tally.refused[424] > 0
    kinds = {"streamed", "whole", "list", "n > 1", "long prompt", "bad body"}
    assert kinds <= set(soaked.tally.asked)
    assert {f"leaves {leaving}" for leaving in Leaving} <= set(soaked.tally.asked)
