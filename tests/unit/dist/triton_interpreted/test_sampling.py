"""Greedy and plain sampling against plain torch."""

from __future__ import annotations

import pytest
import torch

from lmi.dist.kernels.plain import PlainKernels
from lmi.dist.kernels.triton.sampling import CHUNK
from tests.support.paged import triton_kernels

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
VOCABULARIES = [7, CHUNK, 2 * CHUNK + 1]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_argmax_is_the_lowest_id_among_the_largest(dtype: torch.dtype, vocabulary: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, vocabulary).to(dtype)
    logits[1, [3, vocabulary - 1]] = 50
    logits[2] = -1e4
    logits[3] = -torch.inf
    logits[3, vocabulary - 2] = -100
    found = triton_kernels(dtype).argmax(logits)
    assert found.tolist() == PlainKernels(dtype).argmax(logits).tolist()
    assert found[1] == 3
    assert found[2] == 0
    assert found[3] == vocabulary - 2


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_a_row_that_is_not_finite_has_no_token_and_harms_no_other(vocabulary: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, vocabulary)
    logits[0, vocabulary - 1] = torch.nan
    logits[1, 0] = torch.inf
    logits[2] = -torch.inf
    logits[3, 0], logits[3, vocabulary - 1] = torch.inf, torch.nan
    kernels = triton_kernels(torch.float32)
    best = logits[4].argmax().item()
    assert kernels.argmax(logits).tolist() == [-1, -1, -1, -1, best]
    drawn = kernels.draw(logits, [1.0] * 5, [0.5] * 5).tolist()
    assert drawn[:4] == [-1] * 4
    assert drawn[4] >= 0


@pytest.mark.parametrize(
    ("dtype", "vocabulary"),
    [*((torch.float32, size) for size in VOCABULARIES), *((dtype, 300) for dtype in DTYPES[1:])],
)
def test_draws_are_the_plain_ones(dtype: torch.dtype, vocabulary: int) -> None:
    torch.manual_seed(1)
    rows = 12
    logits = (torch.randn(rows, vocabulary) * 3).to(dtype)
    logits[:6, ::2] = -torch.inf
    if vocabulary > CHUNK:
        logits[3, :CHUNK] = -torch.inf
        logits[4, CHUNK:] = -torch.inf
    temperature = torch.rand(rows).mul(2).add(0.05).tolist()
    uniform = torch.rand(rows, dtype=torch.float64)
    uniform[0], uniform[1] = 0.0, 1 - 2**-53
    found = triton_kernels(dtype).draw(logits, temperature, uniform.tolist())
    expected = PlainKernels(dtype).draw(logits, temperature, uniform.tolist())
    # Both sum the same probabilities, but round them differently: at a boundary they may part.
    assert (found == expected).sum() >= rows - 1
    assert logits.gather(1, found[:, None]).isfinite().all()


def test_a_draw_follows_the_probabilities() -> None:
    logits = torch.tensor([[0.1, 0.0, 0.4, 0.5]]).log().expand(20, 4).contiguous()
    uniform = torch.arange(20, dtype=torch.float64).add(0.5).div(20).tolist()
    tokens = triton_kernels(torch.float32).draw(logits, [1.0] * 20, uniform)
    assert tokens.bincount(minlength=4).tolist() == [2, 0, 8, 10]
    assert tokens.tolist() == sorted(tokens.tolist())


def test_a_small_temperature_takes_the_largest() -> None:
    torch.manual_seed(2)
    logits = torch.randn(4, 100)
    kernels = triton_kernels(torch.float32)
    found = kernels.draw(logits, [1e-30] * 4, [0.0, 0.3, 0.6, 0.999])
    assert found.tolist() == logits.argmax(dim=-1).tolist()


def test_logits_may_be_rows_of_a_wider_tensor() -> None:
    torch.manual_seed(3)
    wide = torch.randn(3, 90)
    logits = wide[:, :70]
    kernels = triton_kernels(torch.float32)
    assert kernels.argmax(logits).tolist() == logits.argmax(dim=-1).tolist()
    whole = kernels.draw(logits.contiguous(), [1.0] * 3, [0.5] * 3)
    assert kernels.draw(logits, [1.0] * 3, [0.5] * 3).tolist() == whole.tolist()
