"""Tiny models to quantise, and what watches a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lmi.quantize.make import Task, make
from lmi.quantize.report import LayerReport, Report
from lmi.quantize.settings import ActOrder, Method, settings_for
from tests.support.models import make_model
from tests.support.trained_tokenizers import add_bos, byte_level


class Stopped(Exception):
    """Ends a run where a kill would."""


@dataclass
class Watching:
    """Keeps what a run told; stop_after: the layer behind which it ends."""

    stop_after: int | None = None
    layers: list[LayerReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    phases: list[tuple[str, int, int]] = field(default_factory=list)

    def progress(self, phase: str, done: int, total: int) -> None:
        self.phases.append((phase, done, total))

    def layer(self, report: LayerReport) -> None:
        self.layers.append(report)
        if len(self.layers) == self.stop_after:
            raise Stopped

    def note(self, line: str) -> None:
        self.notes.append(line)


def plain_model(folder: Path, family: str = "llama", *, seed: int = 0) -> Path:
    """A random model with a tokenizer of its vocabulary."""
    make_model(folder, family, seed=seed)
    add_bos(byte_level(500)).save(str(folder / "tokenizer.json"))
    return folder


def task(
    model: Path,
    output: Path,
    method: Method = Method.GPTQ,
    *,
    bits: int | None = None,
    group_size: int | None = 32,
    symmetric: bool | None = None,
    act_order: ActOrder | None = None,
    samples: int = 6,
) -> Task:
    settings = settings_for(
        method,
        bits=bits,
        group_size=group_size if method in (Method.GPTQ, Method.AWQ) else None,
        symmetric=symmetric,
        act_order=act_order,
        samples=samples,
        length=48,
    )
    return Task(model, output, settings)


def made(given: Task, watching: Watching | None = None) -> Report:
    return make(given, watching or Watching())
