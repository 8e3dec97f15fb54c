"""The Triton kernels, compiled, on a GPU: the checks that the interpreter runs elsewhere."""

# ruff: noqa: F403
from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("torch sees no CUDA device here", allow_module_level=True)

from tests.unit.dist.triton_interpreted.test_attention import *
from tests.unit.dist.triton_interpreted.test_low_bit import *
from tests.unit.dist.triton_interpreted.test_rows import *
from tests.unit.dist.triton_interpreted.test_sampling import *


@pytest.fixture(autouse=True)
def _tensors_on_the_gpu() -> Iterator[None]:
    with torch.device("cuda"):
        yield
