"""How the weights are held: `option.quantize`, what the checkpoint says, what goes with both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os.path import isfile
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from lmi.config.assemble import model_of
from lmi.config.contradictions import place
from lmi.config.folder import Folder, read_model
from lmi.config.judge import Judgement
from lmi.config.quantization import ENGINES, Asked, Hardware, Verdict, judge, quantised
from lmi.config.resolution import Fate, Weights
from lmi.config.spec import ModelSpec
from lmi.config.values import Values, get, text_of
from lmi.core import ConfigError

QUANTIZE: Final = "option.quantize"
DTYPE: Final = "option.dtype"
ALPHA: Final = "option.smoothquant_alpha"
CALIBRATION: Final = "option.calibration_data"

_CONFIG: Final = "config.json"
_SMOOTHQUANT: Final = "smoothquant"
# Engines for which LMI's dtype=int8 says how weights are held: they compute in no such type.
_INT8_IS_A_METHOD: Final = frozenset({"lmi-dist", "deepspeed"})
_ONLY_SMOOTHQUANT: Final = f"it matters to {QUANTIZE}={_SMOOTHQUANT} only"


@dataclass(frozen=True, slots=True)
class Files:
    """What is known of the model's files. model: its config.json, None where none is at hand.

    place: that file, for messages.
    """

    model: Mapping[str, Any] | None
    place: Path | None

    def asked(self, values: Values, hardware: Hardware | None, release: str | None) -> Asked:
        """What an engine is asked. hardware, release (of vLLM): None where they are not known."""
        folder = None if self.place is None else self.place.parent
        checkpoint = None if self.model is None else quantised(self.model, folder)
        name = text_of(values, QUANTIZE)
        degree = get(values, "option.tensor_parallel_degree")
        ranks = degree if isinstance(degree, int) else 1
        return Asked(name, checkpoint, self.place is not None, hardware, release, ranks)


def files(values: Values, folder: Folder | None) -> Files:
    """The config.json of the model that is named, or of the folder. Raises ConfigError."""
    named = model_of(values, folder)
    if named is not None:
        config = Path(named) / _CONFIG
        return Files(read_model(config), config) if isfile(config) else Files(None, None)
    if folder is None:
        return Files(None, None)
    config = folder.path / _CONFIG
    return Files(folder.model, config if isfile(config) else None)


def refusals(asked: Asked, values: Values) -> Mapping[str, str]:
    """Engines that can't hold the weights so, and why."""
    found = {}
    for engine in ENGINES:
        verdict = judge(engine, _with_dtype(engine, asked, values))
        if verdict.problem is not None:
            found[engine] = verdict.why
    return found


def weigh(
    engine: str,
    asked: Asked,
    values: Values,
    judgement: Judgement,
    *,
    known: Files,
    folder: Folder | None,
    secure: bool,
) -> Weights:
    """Adds to a judgement what becomes of these options under an engine; gives what is decided.

    secure: SageMaker's secure mode is on.
    """
    if engine not in ENGINES:
        return Weights()
    dtype = values.get(DTYPE)
    by_dtype = _means_int8(engine, values)
    if by_dtype and dtype is not None and _names_method(values):
        want = f"{QUANTIZE} says already how the weights are held; expected auto, fp32, fp16, bf16"
        judgement.problems.append(dtype.error(want))
        return Weights()
    verdict = judge(engine, _with_dtype(engine, asked, values))
    if verdict.problem is not None:
        judgement.problems.append(_error(verdict, by_dtype, asked, values, known, folder))
        return Weights()
    if verdict.method is not None:
        judgement.options["quantize"] = verdict.method
    else:
        _set_aside(judgement, QUANTIZE, "it asks for nothing")
    if by_dtype:
        judgement.options["dtype"] = "auto"
        _annotate(judgement, DTYPE, f"means {QUANTIZE}={verdict.method}")
    elif verdict.note:
        _annotate(judgement, QUANTIZE, verdict.note)
    if verdict.method == _SMOOTHQUANT:
        _calibrate(values, judgement, folder, secure)
    elif engine != "trtllm":
        for key in (ALPHA, CALIBRATION):
            _set_aside(judgement, key, _ONLY_SMOOTHQUANT)
    title = "" if asked.checkpoint is None else f"{asked.checkpoint.title}, says config.json"
    return Weights(verdict.method, title, verdict.note, verdict.needs)


def settled(
    spec: ModelSpec, path: Path, hardware: Hardware | None, release: str | None
) -> ModelSpec:
    """The spec once the model's files are here, which may say how they are quantised.

    Raises ConfigError where the engine can't hold the weights so.
    """
    config = path / _CONFIG
    if spec.engine not in ENGINES or spec.has_custom_handler or not isfile(config):
        return spec
    named = spec.options.get("quantize")
    checkpoint = quantised(read_model(config), path)
    name = None if named is None else str(named)
    degree = spec.tensor_parallel_degree
    ranks = degree if isinstance(degree, int) else 1
    verdict = judge(spec.engine, Asked(name, checkpoint, True, hardware, release, ranks))
    if verdict.problem is not None:
        if verdict.of_checkpoint and checkpoint is not None:
            raise ConfigError("quantization_config", checkpoint.title, str(config), verdict.problem)
        raise ConfigError(QUANTIZE, name, "the configuration", verdict.problem)
    if verdict.method == named:
        return spec
    return replace(spec, options=MappingProxyType({**spec.options, "quantize": verdict.method}))


def _means_int8(engine: str, values: Values) -> bool:
    return engine in _INT8_IS_A_METHOD and get(values, DTYPE) == "int8"


def _names_method(values: Values) -> bool:
    return text_of(values, QUANTIZE) not in (None, "none")


def _with_dtype(engine: str, asked: Asked, values: Values) -> Asked:
    if _means_int8(engine, values) and not _names_method(values):
        return replace(asked, name="int8")
    return asked


def _error(
    verdict: Verdict,
    by_dtype: bool,
    asked: Asked,
    values: Values,
    known: Files,
    folder: Folder | None,
) -> ConfigError:
    want = verdict.problem or ""
    key = DTYPE if by_dtype else QUANTIZE
    if not verdict.of_checkpoint and key in values:
        return values[key].error(want)
    title = "" if asked.checkpoint is None else asked.checkpoint.title
    where = place(folder) if known.place is None else str(known.place)
    return ConfigError("quantization_config", title, where, want)


def _annotate(judgement: Judgement, key: str, note: str) -> None:
    judgement.settings[:] = [
        replace(each, note=note) if each.key == key else each for each in judgement.settings
    ]


def _set_aside(judgement: Judgement, key: str, note: str) -> None:
    """An option that is set and not needed."""
    judgement.options.pop(key.removeprefix("option."), None)
    judgement.settings[:] = [
        replace(each, fate=Fate.ADVISORY, consumer="", note=note)
        if each.key == key and each.fate is Fate.USED
        else each
        for each in judgement.settings
    ]


def _calibrate(values: Values, judgement: Judgement, folder: Folder | None, secure: bool) -> None:
    """The calibration file, found: inside the folder, or anywhere by an absolute path."""
    value = values.get(CALIBRATION)
    if value is None:
        return
    named = Path(value.text)
    if folder is None and not named.is_absolute():
        want = "there is no folder that it could be relative to; expected an absolute path"
        judgement.problems.append(value.error(want))
        return
    base = named.parent if folder is None else folder.path
    path = (base / named).resolve()
    inside = folder is not None and path.is_relative_to(folder.path.resolve())
    if not inside and (secure or not named.is_absolute()):
        why = (
            "secure mode allows files of the model's folder only"
            if secure
            else ("it leads out of the model's folder; expected a file there, or an absolute path")
        )
        judgement.problems.append(value.error(why))
    elif not path.is_file():
        want = 'expected a file that is there: a text on each line, or .jsonl with "text" in each'
        judgement.problems.append(value.error(want))
    else:
        judgement.options["calibration_data"] = str(path)
