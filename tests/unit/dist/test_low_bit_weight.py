"""A quantised weight can be cut and joined without changing what it means."""

from __future__ import annotations

import pytest
import torch

from lmi.dist.kernels.low_bit import LowBitWeight, side_by_side

IN, OUT, GROUPS = 64, 12, 4


def random_weight(
    seed: int, *, act_order: bool = False, zeros: bool = True, bits: int = 4
) -> LowBitWeight:
    generator = torch.Generator().manual_seed(seed)
    group = None
    if act_order:
        order = torch.randperm(IN, generator=torch.Generator().manual_seed(99))
        group = (torch.arange(IN) // (IN // GROUPS))[order]
    values = torch.randint(0, 2**bits, (OUT, IN), generator=generator, dtype=torch.uint8)
    scales = torch.rand((OUT, GROUPS), generator=generator)
    places = torch.randint(0, 2**bits, (OUT, GROUPS), generator=generator).float()
    return LowBitWeight(bits, values, scales, places if zeros else None, group)


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("zeros", [False, True])
def test_parts_mean_what_they_meant_in_the_whole(act_order: bool, zeros: bool) -> None:
    weight = random_weight(0, act_order=act_order, zeros=zeros)
    dense = weight.dense()
    torch.testing.assert_close(weight.rows(3, 7).dense(), dense[3:7])
    for start, stop in ((0, 32), (32, 64), (16, 48), (5, 23)):
        torch.testing.assert_close(weight.columns(start, stop).dense(), dense[:, start:stop])


def test_whole_groups_stay_regular_when_they_are_cut() -> None:
    part = random_weight(0).columns(32, 64)
    assert part.group is None
    assert part.scales.shape == (OUT, 2)


@pytest.mark.parametrize("act_order", [False, True])
def test_joined_weights_mean_what_each_meant(act_order: bool) -> None:
    parts = [random_weight(seed, act_order=act_order) for seed in (1, 2, 3)]
    joined = side_by_side(parts)
    assert joined is not None
    torch.testing.assert_close(joined.dense(), torch.cat([part.dense() for part in parts]))


def test_weights_of_other_kinds_or_groups_are_not_joined() -> None:
    plain = random_weight(1)
    assert side_by_side([plain, random_weight(2, act_order=True)]) is None
    assert side_by_side([plain, random_weight(2, zeros=False)]) is None
    assert side_by_side([plain, random_weight(2, bits=3)]) is None
