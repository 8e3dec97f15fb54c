"""What quantising a model cost: by linear layer, by decoder layer, and at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from lmi.quantize.measure import Fidelity
from lmi.quantize.settings import Settings

FILE: Final = "quantization_report.json"


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One decoder layer. All errors are relative: ||got - wanted|| / ||wanted||.

    error: of what the layer adds to the hidden states, over the calibration text, the layer alone.
    drift: of the hidden states behind it, over the held-back text, all layers so far together.
    linears: of each linear layer's outputs, over the calibration text. seconds: that it took.
    """

    name: str
    error: float
    drift: float
    linears: dict[str, float]
    seconds: float

    def line(self) -> str:
        """For people."""
        worst = max(self.linears, key=lambda name: self.linears[name])
        return (
            f"{self.name}: error {self.error:.4f}, worst {worst} {self.linears[worst]:.4f}, "
            f"drift {self.drift:.4f}, {self.seconds:.1f} s"
        )


@dataclass(frozen=True, slots=True)
class Report:
    """A finished checkpoint. fidelity: over the held-back text, beside the model that it was made
    of. bytes_before, bytes_after: of the weights' files. calibrated, held_back: windows of text.
    key: of model, settings and text."""

    key: str
    settings: Settings
    layers: tuple[LayerReport, ...]
    fidelity: Fidelity
    bytes_before: int
    bytes_after: int
    calibrated: int
    held_back: int

    def write(self, folder: Path) -> None:
        """Into `quantization_report.json`."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Report | None:
        """The report of a finished checkpoint; None where there is none."""
        path = folder / FILE
        if not path.is_file():
            return None
        values = json.loads(path.read_text())
        values["settings"] = Settings(**values["settings"])
        values["layers"] = tuple(LayerReport(**layer) for layer in values["layers"])
        values["fidelity"] = Fidelity(**values["fidelity"])
        return cls(**values)

    def lines(self) -> Iterator[str]:
        """The table for people."""
        name = max(len("layer"), *(len(layer.name) for layer in self.layers))
        yield f"{'layer':{name}}  {'error':>8}  {'drift':>8}  worst linear"
        for layer in self.layers:
            worst = max(layer.linears, key=lambda linear: layer.linears[linear])
            yield (
                f"{layer.name:{name}}  {layer.error:8.4f}  {layer.drift:8.4f}  "
                f"{worst} {layer.linears[worst]:.4f}"
            )
        found = self.fidelity
        share = self.bytes_after / self.bytes_before
        yield ""
        yield f"perplexity      {found.reference_perplexity:.3f} -> {found.perplexity:.3f}"
        yield f"logits          relative error {found.relative_error:.4f}, top-1 {found.top1:.1%}"
        yield f"weights         {_mb(self.bytes_before)} -> {_mb(self.bytes_after)} ({share:.0%})"
        yield (
            f"measured on     {self.held_back} windows of {self.settings.length} tokens held back "
            f"from {self.calibrated} for calibration"
        )


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
