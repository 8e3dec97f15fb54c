"""A whole model over the Triton kernels: the same tokens as over plain torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore
from lmi.dist.kernels.triton import TritonKernels
from lmi.dist.messages import CoreRequest
from tests.support.tiny_llama import write_tiny_llama

REQUESTS = [
    CoreRequest(id=0, prompt=tuple(range(3, 40)), max_new_tokens=4),
    CoreRequest(id=1, prompt=(5, 6, 7, 5, 6, 7, 5, 6), max_new_tokens=5),
    CoreRequest(id=2, prompt=(9,), max_new_tokens=3, temperature=0.8, seed=4),
]


def answers(folder: Path) -> dict[int, list[int | None]]:
    config = DistConfig(
        folder, device="cpu", dtype="float32", kernels="plain", runtime="native",
        max_model_len=64, kv_blocks=16, prefill_tokens=24, speculative_tokens=2,
    )  # fmt: skip
    core = EngineCore(config)
    for request in REQUESTS:
        core.add(request)
    found: dict[int, list[int | None]] = {request.id: [] for request in REQUESTS}
    while core.has_work:
        for event in core.step():
            assert event.token is not None
            found[event.request_id].append(event.token)
    return found


@pytest.mark.parametrize("window", [None, 20])
def test_a_model_over_triton_says_what_it_says_over_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int | None
) -> None:
    folder = write_tiny_llama(tmp_path / "model", window=window)
    expected = answers(folder)
    kernels = TritonKernels(torch.float32, torch.device("cpu"))
    monkeypatch.setattr("lmi.dist.decoder.load.choose_kernels", lambda *_: kernels)
    assert answers(folder) == expected
