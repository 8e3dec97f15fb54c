"""Whether DeepSpeed's kernels take a model's layers, case by case."""

from __future__ import annotations

import pytest

from lmi.engines.deepspeed.injection import decide


@pytest.mark.parametrize(
    ("kind", "device", "paged", "asked", "inject", "reason"),
    [
        ("llama", "cpu", True, None, False, "GPUs"),
        ("llama", "cpu", False, True, False, "GPUs"),
        ("mamba", "cuda", False, None, False, "no kernels for mamba"),
        ("llama", "cuda", True, None, False, "paged"),
        ("llama", "cuda", True, True, False, "paged"),
        ("llama", "cuda", False, None, True, "kernels for llama"),
        ("bert", "cuda", False, True, True, "kernels for bert"),
        ("bert", "cuda", False, False, False, "replace_with_kernel_inject is false"),
    ],
)
def test_the_decision_and_its_reason(
    kind: str, device: str, paged: bool, asked: bool | None, inject: bool, reason: str
) -> None:
    found = decide(kind, device, paged=paged, asked=asked)
    assert found.inject is inject
    assert reason in found.reason
