"""GPTQ, AWQ and the grid of numbers, on single weights."""

from __future__ import annotations

import pytest
import torch

from lmi.core import BuildError
from lmi.quantize import awq
from lmi.quantize.gptq import gptq
from lmi.quantize.grid import Grid
from lmi.quantize.inputs import output_error
from lmi.quantize.settings import ActOrder

pytestmark = pytest.mark.slow
OUT, IN = 48, 128


def _weight(seed: int = 0) -> torch.Tensor:
    return torch.randn((OUT, IN), generator=torch.Generator().manual_seed(seed))


def _inputs(seed: int = 1) -> torch.Tensor:
    """Rows whose features depend on each other and differ much in size."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn((512, 40), generator=generator) @ torch.randn((40, IN), generator=generator)
    sizes = torch.exp(torch.randn(IN, generator=generator))
    return (mixed + 0.5 * torch.randn((512, IN), generator=generator)) * sizes


def _moments() -> torch.Tensor:
    rows = _inputs()
    return rows.T @ rows / len(rows)


def _gptq(bits: int, size: int, order: ActOrder, *, symmetric: bool = True) -> float:
    weight, moments = _weight(), _moments()
    low = gptq(
        weight, moments, Grid(bits, symmetric, 1), group_size=size, act_order=order, name="w"
    )
    assert low.bits == bits
    assert low.scales.shape == (OUT, 1 if size == -1 else IN // size)
    return output_error(weight, low.dense(), moments)


def _nearest(bits: int, size: int, *, symmetric: bool = True) -> float:
    weight, moments = _weight(), torch.eye(IN)
    low = awq.nearest(weight, moments, Grid(bits, symmetric), size)
    return output_error(weight, low.dense(), _moments())


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("size", [32, 64, 128, -1])
@pytest.mark.parametrize("order", list(ActOrder))
def test_gptq_loses_less_than_rounding_to_nearest(bits: int, size: int, order: ActOrder) -> None:
    assert _gptq(bits, size, order) < 0.62 * _nearest(bits, size)


@pytest.mark.parametrize("bits", [3, 4])
def test_zero_points_help_where_groups_are_not_centred(bits: int) -> None:
    asymmetric = _gptq(bits, 32, ActOrder.STATIC, symmetric=False)
    assert asymmetric < _gptq(bits, 32, ActOrder.STATIC)


def test_more_bits_lose_less() -> None:
    errors = [_gptq(bits, 32, ActOrder.STATIC) for bits in (3, 4, 8)]
    assert errors[0] > 1.8 * errors[1] > 1.8 * 6 * errors[2]


def test_gptq_does_what_the_paper_does_column_by_column() -> None:
    """The update of all later columns at once, by the inverse of what is left of the moments."""
    weight, moments, grid = _weight()[:4, :32], _moments()[:32, :32], Grid(4, True, 1)
    low = gptq(weight, moments, grid, group_size=-1, act_order=ActOrder.OFF, name="w")
    damped = (moments + 0.01 * moments.diagonal().mean() * torch.eye(32)).double()
    rows = weight.double()
    scale, zero = grid.fit(weight, moments.diagonal())
    for column in range(32):
        inverse = torch.linalg.inv(damped[column:, column:])
        value = rows[:, column : column + 1].clone()
        rounded = grid.rounded(value, scale.double(), zero.double())
        rows[:, column:] -= (value - rounded) / inverse[0, 0] * inverse[0]
        rows[:, column : column + 1] = rounded
    torch.testing.assert_close(low.dense().double(), rows, atol=1e-5, rtol=1e-4)


def test_static_order_keeps_groups_and_group_order_makes_its_own() -> None:
    weight, moments, grid = _weight(), _moments(), Grid(4, True, 1)
    orders = {
        order: gptq(weight, moments, grid, group_size=32, act_order=order, name="w").group
        for order in ActOrder
    }
    assert orders[ActOrder.OFF] is None
    assert orders[ActOrder.STATIC] is None
    own = orders[ActOrder.GROUP]
    assert own is not None
    assert torch.equal(own.bincount(), torch.full((4,), 32))
    first = moments.diagonal().argsort(descending=True)[:32]
    assert (own[first] == 0).all()


def test_an_input_that_is_always_zero_harms_nothing() -> None:
    weight, moments = _weight(), _moments()
    moments[5] = moments[:, 5] = 0
    low = gptq(
        weight, moments, Grid(4, True, 1), group_size=32, act_order=ActOrder.STATIC, name="w"
    )
    assert torch.isfinite(low.dense()).all()
    assert output_error(weight, low.dense(), moments) < 0.1


def test_moments_that_say_nothing_are_an_error_that_names_the_layer() -> None:
    moments = -_moments()
    with pytest.raises(BuildError, match=r"layers\.3\.up: .*more calibration text"):
        gptq(
            _weight(),
            moments,
            Grid(4, True),
            group_size=-1,
            act_order=ActOrder.OFF,
            name="layers.3.up",
        )


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("least", [0, 1])
def test_a_grid_reaches_every_value_of_its_group(symmetric: bool, least: int) -> None:
    generator = torch.Generator().manual_seed(4)
    block = torch.randn((64, 32), generator=generator)
    block[:16] = block[:16].abs()
    block[16:32] = -block[16:32].abs()
    block[32] = 0
    grid = Grid(4, symmetric, least)
    scale, zero = grid.fit(block)
    assert torch.equal(scale, scale.half().float())
    assert bool((zero >= least).all())
    assert bool((zero <= 15).all())
    # Half a step, and what half precision took from the scale.
    off = (grid.rounded(block, scale, zero) - block).abs() / scale
    assert float(off.max()) <= (1.02 if symmetric else 0.6)
    assert float(grid.rounded(block, scale, zero)[32].abs().max()) == 0


def test_a_range_is_cut_where_what_is_cut_off_weighs_little() -> None:
    block = torch.tensor([[0.1, -0.2, 0.3, 0.25, -0.15, 0.05, 0.2, 1.0]])
    light = torch.tensor([1.0] * 7 + [1e-6])
    grid = Grid(3, True)
    whole, _ = grid.fit(block)
    cut, zero = grid.fit(block, light)
    assert float(cut) < float(whole)
    even, _ = grid.fit(block, torch.ones(8))
    assert float(even) > float(cut)
    assert (zero == 4).all()


def test_awq_scales_up_what_meets_large_inputs_and_loses_less() -> None:
    weight, moments, grid = _weight(), _moments(), Grid(4, False)
    scales = awq.scales_for([weight], moments, grid, 32)
    sizes = moments.diagonal().sqrt()
    assert float(scales[sizes.argsort()[-10:]].mean()) > float(scales[sizes.argsort()[:10]].mean())
    low = awq.nearest(weight * scales, moments / scales / scales[:, None], grid, 32)
    plain = awq.nearest(weight, moments, grid, 32)
    lost = output_error(weight, low.dense() / scales, moments)
    assert lost < 0.95 * output_error(weight, plain.dense(), moments)
