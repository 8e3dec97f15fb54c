"""`lmi quantize`: a model's weights in 3, 4 or 8 bits, as a checkpoint that any engine reads."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmi.cli.failures import told
from lmi.cli.inputs import AsJson
from lmi.quantize.settings import ActOrder, Settings

if TYPE_CHECKING:
    from lmi.launch.progress import Reporter
    from lmi.models import Store
    from lmi.quantize.make import Task
    from lmi.quantize.report import LayerReport, Report

_S3 = "s3://"


class MethodChoice(StrEnum):
    """What --method may say."""

    GPTQ = "gptq"
    AWQ = "awq"
    SMOOTHQUANT = "smoothquant"
    INT8 = "int8"
    FP8 = "fp8"


def quantize(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A folder, a hub id, or s3://bucket/prefix."),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", metavar="DIR|s3://...", help="Where the checkpoint goes: a new folder."
        ),
    ],
    method: Annotated[MethodChoice, typer.Option("--method", help="How weights are rounded.")],
    bits: Annotated[
        int | None,
        typer.Option("--bits", help="gptq: 3, 4 or 8 (default 4); awq: 4.", show_default=False),
    ] = None,
    group_size: Annotated[
        int | None,
        typer.Option(
            "--group-size",
            help="Inputs that share a scale: 32, 64, 128 (default), or -1 for all of a row.",
            show_default=False,
        ),
    ] = None,
    act_order: Annotated[
        ActOrder | None,
        typer.Option(
            "--act-order",
            help="gptq: columns with the largest inputs first, in the groups where they stand "
            "(static, the default), in groups of their own (group), or not (off).",
            show_default=False,
        ),
    ] = None,
    symmetric: Annotated[
        bool | None,
        typer.Option(
            "--symmetric/--asymmetric",
            help="Whether zero is the middle of the range. Default: gptq yes, awq no.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FILE",
            help='Calibration text: one text per line, or .jsonl of objects with "text". '
            "Default: our own small set.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", help="Calibration windows.")] = 32,
    length: Annotated[int, typer.Option("--length", help="Tokens in each.")] = 128,
    alpha: Annotated[
        float | None,
        typer.Option(
            "--alpha",
            help="smoothquant: how much moves from activations to weights, 0 to 1.",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="For models of the hub.", show_default=False)
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that the model's folder holds.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a quantised checkpoint of a model.

    The model is taken layer by layer: one is in memory at a time. A run that is killed goes on
    where it was when it is started again. What it cost is measured on text that was held back, and
    stands in quantization_report.json beside the weights. Exit code: 0; 2 for what can't be done;
    3 where making it failed.

    Examples:

    lmi quantize org/model --method gptq --bits 4 --output model-gptq

    lmi quantize ./model --method awq --data texts.jsonl --output s3://bucket/model-awq
    """
    with told(as_json=as_json):
        if method is MethodChoice.SMOOTHQUANT:
            _refuse_for_smoothquant(bits, group_size, act_order, symmetric)
            with _shown(as_json) as reporter:
                store = _store(reporter)
                here = store.get(model, revision=revision).path
                store.put(_smoothed(here, alpha, data, trust_remote_code, reporter), output)
            _say({"ok": True, "output": output}, [f"written to {output}"], as_json)
            return
        settings = _settings(method, bits, group_size, symmetric, act_order, samples, length, alpha)
        with _shown(as_json) as reporter:
            from lmi.quantize.make import Task

            store = _store(reporter)
            here = store.get(model, revision=revision).path
            with _place(store, output) as folder:
                task = Task(here, folder, settings, data, trust_remote_code)
                report = _made(task, reporter)
        lines = [*report.lines(), f"written to      {output}"]
        _say({"ok": True, "output": output, **asdict(report)}, lines, as_json)


def _settings(
    method: MethodChoice,
    bits: int | None,
    group_size: int | None,
    symmetric: bool | None,
    act_order: ActOrder | None,
    samples: int,
    length: int,
    alpha: float | None,
) -> Settings:
    from lmi.core import ConfigError
    from lmi.quantize.settings import Method, settings_for

    if alpha is not None:
        want = "only --method smoothquant moves anything"
        raise ConfigError("--alpha", str(alpha), "the command line", want)
    return settings_for(
        Method(method.value),
        bits=bits,
        group_size=group_size,
        symmetric=symmetric,
        act_order=act_order,
        samples=samples,
        length=length,
    )


def _refuse_for_smoothquant(*given: object) -> None:
    from lmi.core import ConfigError

    for flag, value in zip(
        ("--bits", "--group-size", "--act-order", "--symmetric"), given, strict=True
    ):
        if value is not None:
            want = "--method smoothquant has weights and activations of 8 bits, a scale per row"
            raise ConfigError(flag, str(value), "the command line", want)


def _say(document: dict[str, object], lines: Iterable[str], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines)


def _smoothed(
    model: Path, alpha: float | None, data: Path | None, trust: bool, reporter: Reporter
) -> Path:
    """The artifact that `option.quantize=smoothquant` makes at a start, from the same cache."""
    from lmi.launch.bind import ARTIFACTS
    from lmi.models import default_cache
    from lmi.quantize import smoothquant

    return smoothquant.ensure(
        model,
        alpha=smoothquant.ALPHA if alpha is None else alpha,
        calibration=data,
        cache=default_cache(os.environ) / ARTIFACTS,
        trust_remote_code=trust,
        progress=reporter.report,
    )


def _made(task: Task, reporter: Reporter) -> Report:
    import transformers

    from lmi.quantize.make import make

    # What it says while it makes a model is for people who write models.
    transformers.logging.set_verbosity_error()
    return make(task, _Shown(reporter))


class _Shown:
    """Bars on a terminal; elsewhere a line for each layer."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._lines = not sys.stderr.isatty()

    def progress(self, phase: str, done: int, total: int) -> None:
        self._reporter.report(phase, done, total)

    def layer(self, report: LayerReport) -> None:
        if self._lines:
            self.note(report.line())

    def note(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


@contextmanager
def _shown(as_json: bool) -> Iterator[Reporter]:
    from lmi.launch import logs, progress

    logs.configure("error" if as_json else "info")
    reporter = progress.reporter()
    try:
        yield reporter
    finally:
        reporter.close()


def _store(reporter: Reporter) -> Store:
    from lmi.models import Store, default_cache

    return Store(default_cache(os.environ), progress=reporter.report)


@contextmanager
def _place(store: Store, output: str) -> Iterator[Path]:
    """The folder that a checkpoint is made in; one for S3 is uploaded at the end.

    It stays the same for the same target, so that a killed run goes on there too.
    """
    if not output.startswith(_S3):
        yield Path(output).expanduser().absolute()
        return
    import hashlib

    from lmi.models import default_cache

    name = hashlib.sha256(output.encode()).hexdigest()[:20]
    folder = default_cache(os.environ) / "quantized" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    yield folder
    store.put(folder, output)
    shutil.rmtree(folder)
