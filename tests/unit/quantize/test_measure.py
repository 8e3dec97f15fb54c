"""The figures of a quantised model, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from lmi.quantize.measure import Comparison, compare, perplexity, relative_error, top1

pytestmark = pytest.mark.slow


def test_the_relative_error_is_of_norms_and_not_of_single_numbers() -> None:
    want = torch.tensor([[3.0, 4.0]])
    assert relative_error(torch.tensor([[3.0, 4.5]]), want) == pytest.approx(0.1)
    assert relative_error(want, want) == 0.0
    assert relative_error(want, torch.zeros_like(want)) == math.inf


def test_top1_counts_rows() -> None:
    want = torch.tensor([[1.0, 2.0], [2.0, 1.0], [0.0, 5.0], [1.0, 0.0]])
    got = torch.tensor([[0.0, 9.0], [1.0, 3.0], [4.0, 5.0], [1.0, 0.5]])
    assert top1(got, want) == 0.75


def test_perplexity_is_of_the_token_after_each() -> None:
    # After any token, token 1 has the probability 1/4 and token 0 has 3/4.
    row = torch.tensor([0.75, 0.25]).log()
    found = perplexity(lambda ids: row.expand(len(ids), 2), [[0, 1, 0], [1, 1]])
    assert found == pytest.approx(math.exp(-(2 * math.log(0.25) + math.log(0.75)) / 3))


def test_a_uniform_model_has_the_vocabulary_as_its_perplexity() -> None:
    assert perplexity(lambda ids: torch.zeros(len(ids), 50), [[1, 2, 3]]) == pytest.approx(50)


def test_windows_add_up_to_what_one_long_row_gives() -> None:
    generator = torch.Generator().manual_seed(3)
    want = torch.randn((12, 7), generator=generator)
    got = want + 0.3 * torch.randn((12, 7), generator=generator)
    found = Comparison()
    ids = torch.randint(7, (12,), generator=generator).tolist()
    for start, stop in ((0, 5), (5, 12)):
        found.add(ids[start:stop], got[start:stop], want[start:stop])
    result = found.result()
    assert result.relative_error == pytest.approx(relative_error(got, want))
    assert result.top1 == pytest.approx(top1(got, want))
    assert result.tokens == 12
    assert result.perplexity == pytest.approx(
        perplexity(lambda part: got[:5] if len(part) == 5 else got[5:], [ids[:5], ids[5:]])
    )
    assert result.perplexity != pytest.approx(result.reference_perplexity)


def test_a_model_beside_itself_has_no_error() -> None:
    table = torch.randn((9, 9), generator=torch.Generator().manual_seed(1))
    found = compare(lambda ids: table[list(ids)], lambda ids: table[list(ids)], [[1, 2, 8]])
    assert (found.relative_error, found.top1) == (0.0, 1.0)
    assert found.perplexity == found.reference_perplexity


def test_logits_that_are_not_of_these_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="a row for each id"):
        Comparison().add([1, 2], torch.zeros(3, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="two tokens"):
        perplexity(lambda ids: torch.zeros(len(ids), 4), [[1]])
