"""Cosines and sines of the rotary embedding, in float32 and in the order in which models were
trained with them: an angle of thousands of radians shows every rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import torch

from lmi.dist.decoder.config import Rope


def rope_table(rope: Rope, positions: int, device: torch.device) -> torch.Tensor:
    """(positions, size) float32: a position's cosines, one per pair, then its sines."""
    exponents = torch.arange(0, rope.size, 2, dtype=torch.int64).float() / rope.size
    frequencies, factor = _KINDS[rope.kind](rope, 1.0 / (rope.theta**exponents))
    angles = torch.arange(positions).float()[:, None] * frequencies[None]
    return (torch.cat([angles.cos(), angles.sin()], dim=-1) * factor).to(device)


def _default(rope: Rope, base: torch.Tensor) -> tuple[torch.Tensor, float]:
    return base, 1.0


def _linear(rope: Rope, base: torch.Tensor) -> tuple[torch.Tensor, float]:
    return base / rope.settings["factor"], 1.0


def _llama3(rope: Rope, base: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Llama 3.1: long wavelengths are stretched, short ones stay, those between are mixed."""
    settings = rope.settings
    low, high = settings["low_freq_factor"], settings["high_freq_factor"]
    original = settings["original_max_position_embeddings"]
    wavelength = 2 * math.pi / base
    stretched = base / settings["factor"]
    smooth = (original / wavelength - low) / (high - low)
    mixed = (1 - smooth) * stretched + smooth * base
    found = torch.where(wavelength > original / low, stretched, mixed)
    return torch.where(wavelength < original / high, base, found), 1.0


def _yarn(rope: Rope, base: torch.Tensor) -> tuple[torch.Tensor, float]:
    """YaRN (Peng et al., 2023): a ramp between interpolated and original frequencies."""
    settings = rope.settings
    factor, original = settings["factor"], settings["original_max_position_embeddings"]

    def place(turns: float) -> float:
        return rope.size * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = place(settings.get("beta_fast") or 32), place(settings.get("beta_slow") or 1)
    if settings.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.size - 1)
    width = (high - low) or 0.001
    ramp = ((torch.arange(base.numel(), dtype=torch.float32) - low) / width).clamp(0, 1)
    return base / factor * ramp + base * (1 - ramp), _yarn_factor(settings, factor)


def _yarn_factor(settings: dict[str, Any], factor: float) -> float:
    """What cosines and sines are multiplied by: the softmax's temperature."""

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if settings.get("attention_factor") is not None:
        return float(settings["attention_factor"])
    if settings.get("mscale") and settings.get("mscale_all_dim"):
        return scale(settings["mscale"]) / scale(settings["mscale_all_dim"])
    return scale(1.0)


_KINDS: Final[dict[str, Callable[[Rope, torch.Tensor], tuple[torch.Tensor, float]]]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}
