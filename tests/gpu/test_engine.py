"""A whole model on a GPU: the same greedy tokens over plain torch, Triton, and CUDA graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore
from lmi.dist.cuda_graphs import GraphedModel
from lmi.dist.kernels.triton import TritonKernels
from lmi.dist.kernels.triton.varlen import choose_prefill
from lmi.dist.messages import CoreRequest
from tests.support.tiny_llama import VOCABULARY, write_tiny_llama

if not torch.cuda.is_available():
    pytest.skip("torch sees no CUDA device here", allow_module_level=True)

REQUESTS = [
    CoreRequest(
        id=number,
        prompt=tuple((7 * number + place) % VOCABULARY for place in range(1 + 9 * number % 80)),
        max_new_tokens=5 + 3 * number,
        temperature=0.0 if number % 4 else 0.7,
        seed=number,
    )
    for number in range(20)
]


@pytest.fixture(scope="module", params=[None, 24], ids=["whole", "window"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny", window=request.param)


def answers(folder: Path, **options: Any) -> dict[int, list[int | None]]:
    config = DistConfig(
        folder, device="cuda", dtype="float32", runtime="native",
        max_batch=12, prefill_tokens=64, kv_cache_bytes=1 << 22, **options,
    )  # fmt: skip
    core = EngineCore(config)
    kernels = core._facts.kernels
    assert isinstance(kernels, TritonKernels) == (config.kernels == "triton")
    model = core._runner._model
    assert isinstance(model, GraphedModel) == (config.cuda_graphs and config.kernels == "triton")
    for request in REQUESTS:
        core.add(request)
    found: dict[int, list[int | None]] = {request.id: [] for request in REQUESTS}
    while core.has_work:
        for event in core.step():
            found[event.request_id].append(event.token)
    return found


def test_triton_and_graphs_say_what_plain_torch_says(folder: Path) -> None:
    expected = answers(folder, kernels="plain")
    assert answers(folder, kernels="triton", cuda_graphs=False) == expected
    assert answers(folder, kernels="triton") == expected
    assert answers(folder, kernels="triton", speculative_tokens=3) == expected


def test_the_cache_is_sized_by_what_is_free(folder: Path) -> None:
    """With the share of a full context for each place at most, as the tiny model needs no more."""
    core = EngineCore(DistConfig(folder, device="cuda", max_batch=4))
    assert core.stats().kv_blocks_total == 4 * 256 // 16
    refused = DistConfig(folder, device="cuda", max_batch=4, device_memory_share=1e-9)
    with pytest.raises(Exception, match="KV cache has"):
        EngineCore(refused)


def test_torchs_paged_attention_is_taken_only_where_it_agrees() -> None:
    attend = choose_prefill(torch.device("cuda"), torch.bfloat16)
    assert attend.__name__ in ("prefill_attention", "varlen_prefill")
