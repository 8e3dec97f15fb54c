"""A quantised checkpoint of a model, made layer by layer.

Three rows of hidden states go through the layers: the calibration text through the layers that are
rounded, and the held-back text through these and through the model's own. So what is measured at
the end needs no second pass, and no more memory than a layer and the rows. A finished layer's
weights are read back from its file before the rows pass it: what is measured is what was written,
and a run that goes on after a kill computes from the same numbers.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from lmi.core import BuildError, ModelError
from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.dist.quantized import reader_of
from lmi.quantize import calibration
from lmi.quantize.measure import Comparison, Fidelity
from lmi.quantize.nearest import Fp8Recipe, Int8Recipe
from lmi.quantize.recipes import AwqRecipe, GptqRecipe, Recipe
from lmi.quantize.report import LayerReport, Report
from lmi.quantize.settings import Method, Settings
from lmi.quantize.skeleton import DecoderLayer, Skeleton, open_skeleton
from lmi.quantize.work import Work, open_work
from lmi.quantize.write import write_checkpoint
from lmi.text import Tokenizer

# One window of so many is held back from calibration and measured on.
HELD_BACK_EVERY: Final = 4

Progress = Callable[[str, int, int], None]
"""Reports (phase, done, total)."""


class Watcher(Protocol):
    """Is told how a run goes on."""

    def progress(self, phase: str, done: int, total: int, /) -> None: ...
    def layer(self, report: LayerReport, /) -> None:
        """A layer is finished."""

    def note(self, line: str, /) -> None:
        """What a person should know."""


@dataclass(frozen=True, slots=True)
class Task:
    """model: a folder with config.json, safetensors and a tokenizer. output: a folder that is not
    there yet. text: a file for calibration, None for our own."""

    model: Path
    output: Path
    settings: Settings
    text: Path | None = None
    trust_remote_code: bool = False


@dataclass(slots=True)
class _Rows:
    """Hidden states before the next layer, (1, tokens, size) a window."""

    calibration: list[torch.Tensor]
    held_back: list[torch.Tensor]
    reference: list[torch.Tensor]


def recipe_for(settings: Settings) -> Recipe:
    """The method of these settings."""
    match settings.method:
        case Method.GPTQ:
            return GptqRecipe(settings)
        case Method.AWQ:
            return AwqRecipe(settings)
        case Method.INT8:
            return Int8Recipe()
        case Method.FP8:
            return Fp8Recipe()


def make(task: Task, watcher: Watcher) -> Report:
    """Make the checkpoint, or go on with what a killed run left; what is there already, made of the
    same, is reported again. Raises ModelError, BuildError."""
    _refuse_quantised(task.model)
    texts = calibration.texts(task.text)
    tokenizer = Tokenizer.load(task.model, trust_remote_code=task.trust_remote_code)
    settings = task.settings
    wanted = settings.samples * HELD_BACK_EVERY // (HELD_BACK_EVERY - 1) + 1
    windows = calibration.windows(tokenizer, texts, wanted, settings.length)
    held_back = windows[HELD_BACK_EVERY - 1 :: HELD_BACK_EVERY]
    chosen = [ids for at, ids in enumerate(windows) if (at + 1) % HELD_BACK_EVERY]
    chosen = chosen[: settings.samples]
    recipe = recipe_for(settings)
    key = settings.key(_fingerprint(task.model), json.dumps([chosen, held_back]))
    found = Report.read(task.output)
    if found is not None and found.key == key:
        watcher.note(f"{task.output} is there already, made of the same")
        return found
    made_of = f"{task.model}: {json.dumps(asdict(settings))}"
    with (
        _disk_errors(task.output),
        Checkpoint(task.model) as checkpoint,
        open_work(task.output, key, made_of) as work,
    ):
        for other in work.others:
            watcher.note(f"not used, of another run: {other}")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        skeleton = open_skeleton(
            task.model, checkpoint, device=device, trust_remote_code=task.trust_remote_code
        )
        outside = sorted({"lm_head", *skeleton.linears_around()})
        quantization = recipe.config(outside)
        rows = _Rows(
            [skeleton.embed(ids) for ids in chosen],
            [skeleton.embed(ids) for ids in held_back],
            [skeleton.embed(ids) for ids in held_back],
        )
        passed = _Pass(skeleton, recipe, quantization, work, watcher)
        layers = tuple(passed.layer(index, rows) for index in range(skeleton.layers))
        watcher.progress("measuring", 0, len(held_back))
        fidelity = _fidelity(skeleton, held_back, rows)
        watcher.progress("writing the checkpoint", 0, 1)
        written = write_checkpoint(task.model, checkpoint, skeleton, work, quantization)
        report = Report(
            key,
            settings,
            layers,
            fidelity,
            bytes_before=checkpoint.total_bytes,
            bytes_after=written,
            calibrated=len(chosen),
            held_back=len(held_back),
        )
        report.write(work.checkpoint_folder)
        work.publish(task.output)
        watcher.progress("writing the checkpoint", 1, 1)
    return report


@dataclass(frozen=True, slots=True)
class _Pass:
    """Takes the rows through the layers, which are rounded where they are not yet."""

    skeleton: Skeleton
    recipe: Recipe
    quantization: dict[str, Any]
    work: Work
    watcher: Watcher

    def layer(self, index: int, rows: _Rows) -> LayerReport:
        """The rows behind a layer, and what rounding it cost."""
        began = time.monotonic()
        phase = f"{self.recipe.label} of {self.skeleton.layers} layers"
        self.watcher.progress(phase, index, self.skeleton.layers)
        done = self.work.finished(index)
        with self.skeleton.layer(index) as layer:
            rows.reference = [layer(hidden) for hidden in rows.reference]
            if done is not None:
                self._fill(layer, self.work.layer_folder(index))
                rows.calibration = [layer(hidden) for hidden in rows.calibration]
                rows.held_back = [layer(hidden) for hidden in rows.held_back]
                return LayerReport(**done)
            names = layer.linears()
            for name, linear in names.items():
                self.recipe.check(f"{layer.name}.{name}", linear.in_features, linear.out_features)
            wanted = [layer(hidden) for hidden in rows.calibration]
            rounded = self.recipe.round(layer, rows.calibration)
            folder = self.work.begin(index, self._stored(layer, rounded.tensors))
            self._fill(layer, folder)
            got = [layer(hidden) for hidden in rows.calibration]
            rows.held_back = [layer(hidden) for hidden in rows.held_back]
        report = LayerReport(
            name=layer.name,
            error=_relative(
                zip(got, wanted, strict=True),
                (w - h for w, h in zip(wanted, rows.calibration, strict=True)),
            ),
            drift=_relative(zip(rows.held_back, rows.reference, strict=True), rows.reference),
            linears=rounded.errors,
            seconds=round(time.monotonic() - began, 2),
        )
        rows.calibration = got
        self.work.finish(index, asdict(report))
        self.watcher.layer(report)
        return report

    def _stored(
        self, layer: DecoderLayer, tensors: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """A rounded layer's tensors by their names in the checkpoint."""
        found = {}
        for key, tensor in tensors.items():
            module, _, suffix = key.rpartition(".")
            like = self.skeleton.stored(f"{layer.name}.{module}.weight").removesuffix("weight")
            found[like + suffix] = tensor.contiguous()
        return found

    def _fill(self, layer: DecoderLayer, folder: Path) -> None:
        """Give a layer the weights that a folder of `Work` holds."""
        filled = {}
        linears = layer.linears()
        with Checkpoint(folder) as written:
            for key in layer.dtypes:
                module, _, suffix = key.rpartition(".")
                stored = self.skeleton.stored(f"{layer.name}.{key}")
                if module in linears and suffix == "weight":
                    filled[key] = self._meaning(written, stored.removesuffix(".weight"))
                elif stored in written:
                    filled[key] = written.take(stored).float()
        device = next(layer.module.parameters()).device
        layer.fill({key: tensor.to(device) for key, tensor in filled.items()})

    def _meaning(self, written: Checkpoint, name: str) -> torch.Tensor:
        """A linear's weight (out, in) in float32, as the file has it."""
        if f"{name}.weight" in written:
            return written.take(f"{name}.weight").float() * written.take(f"{name}.weight_scale")
        low = reader_of(self.quantization, "quantization_config").read(written, name)
        if low is None:
            raise BuildError(f"{name}: nothing was written for it")
        return low.dense()


def _fidelity(skeleton: Skeleton, held_back: Sequence[list[int]], rows: _Rows) -> Fidelity:
    found = Comparison()
    for ids, got, want in zip(held_back, rows.held_back, rows.reference, strict=True):
        found.add(ids, skeleton.logits(got), skeleton.logits(want))
    return found.result()


def _relative(
    pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], sizes: Iterable[torch.Tensor]
) -> float:
    """||got - want|| / ||size||, over all windows."""
    lost = sum(float((got - want).double().square().sum()) for got, want in pairs)
    size = sum(float(each.double().square().sum()) for each in sizes)
    return 0.0 if size == 0 else (lost / size) ** 0.5


def _refuse_quantised(model: Path) -> None:
    path = model / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read: {error}") from error
    if found := config.get("quantization_config"):
        method = found.get("quant_method") if isinstance(found, dict) else found
        raise ModelError(
            f"{model} is quantised already ({method}): give the model that it was made of"
        )


def _fingerprint(model: Path) -> str:
    """Differs where the weights or the configuration do: names, sizes and times of the weights'
    files, and what config.json says."""
    sha = hashlib.sha256((model / "config.json").read_bytes())
    for path in sorted(model.glob("*.safetensors")):
        told = path.stat()
        sha.update(f"\0{path.name}\0{told.st_size}\0{told.st_mtime_ns}".encode())
    return sha.hexdigest()


@contextmanager
def _disk_errors(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or output
        raise BuildError(f"can't write {where}: {error.strerror}; run it again to go on") from error
