"""How far an engine's scores are from the reference's, in the engine's own process.

Engines give logits, or logarithms of probabilities: these differ by a number per token, so each row
is taken less its mean. Windows are ids of held-back text; the last token's scores are left out,
since not every engine tells them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from lmi.quantize.measure import Comparison

Scores = Callable[[Sequence[int]], torch.Tensor]
"""A window's ids to its scores, (tokens or one less, vocabulary)."""


def windows_of(file: Path) -> list[list[int]]:
    """What `benchmarks.quantized.models` wrote."""
    found: list[list[int]] = json.loads(file.read_text())
    return found


def fidelity(scores: Scores, windows: Path, reference: Path) -> dict[str, str]:
    """Relative error, top-1 agreement and perplexity, for the subject's facts."""
    wanted = load_file(reference)
    comparison = Comparison()
    for place, ids in enumerate(windows_of(windows)):
        rows = centred(scores(ids)[: len(ids) - 1])
        comparison.add(ids[:-1], rows, centred(wanted[str(place)][: len(ids) - 1]))
    found = comparison.result()
    return {
        "relative error": f"{found.relative_error:.6f}",
        "top1": f"{found.top1:.4f}",
        "perplexity": f"{found.perplexity:.4f}",
        "reference perplexity": f"{found.reference_perplexity:.4f}",
    }


def centred(rows: torch.Tensor) -> torch.Tensor:
    """Each row less its mean."""
    wide = rows.double()
    return wide - wide.mean(dim=-1, keepdim=True)
