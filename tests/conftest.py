"""True of all tests: the fast ones never pay for importing torch.

A module (or folder) that imports torch when it is collected is slow as a whole; a run of the fast
tests does not even look into it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
IMPORT_TORCH = frozenset(
    TESTS / name
    for name in (
        "e2e/test_quantize.py",
        "e2e/test_smoothquant.py",
        "fault/test_dist_process_model.py",
        "gpu",
        "tokens",
        "unit/dist/at_load",
        "unit/dist/float8",
        "unit/dist/test_attention.py",
        "unit/dist/test_collectives.py",
        "unit/dist/test_core.py",
        "unit/dist/test_core_sharing.py",
        "unit/dist/test_cuda_graphs.py",
        "unit/dist/test_decoder.py",
        "unit/dist/test_linear.py",
        "unit/dist/test_loader.py",
        "unit/dist/test_low_bit_weight.py",
        "unit/dist/test_native_kernels.py",
        "unit/dist/test_native_low_bit.py",
        "unit/dist/quantized",
        "unit/dist/test_sampling.py",
        "unit/dist/test_triton_compiles.py",
        "unit/dist/triton_interpreted",
        "unit/custom/test_deepspeed_service.py",
        "unit/handlers/test_tabular.py",  # no torch, but what takes as long
        "unit/handlers/test_transformers_tasks.py",
        "unit/engines/deepspeed/test_call.py",
        "unit/engines/test_vllm_engine.py",
        "unit/quantize/smoothquant/test_ensured.py",
        "unit/quantize/smoothquant/test_outliers.py",
        "unit/quantize/smoothquant/test_recipe.py",
        "unit/quantize/smoothquant/test_smoothing.py",
        "unit/quantize",
    )
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    fast = config.getoption("markexpr") == "not slow"
    return True if fast and collection_path in IMPORT_TORCH else None


def pytest_itemcollected(item: pytest.Item) -> None:
    if not IMPORT_TORCH.isdisjoint((item.path, *item.path.parents)):
        item.add_marker("slow")
