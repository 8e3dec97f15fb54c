"""Decides a configuration once: every value with its origin, every problem at once, one ModelSpec.

A higher layer wins (`Layer`); what it beats stays on record. Nothing is ignored: a value is used,
or known and not needed here, or belongs to the model's own code, or is an error. Pure but for
reading the files named here; no network, and no heavy library.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from os.path import isdir, isfile
from pathlib import Path

from lmi.config import sources
from lmi.config.assemble import assemble
from lmi.config.choose import NoEngine, Question, choose
from lmi.config.code import takes_requests
from lmi.config.contradictions import contradictions, place
from lmi.config.folder import Folder, descend, look
from lmi.config.front import Front
from lmi.config.judge import defaults, judge, unable
from lmi.config.options import FOREIGN_ENGINES, spellings
from lmi.config.parameters import from_parameters
from lmi.config.problems import ConfigErrors
from lmi.config.quantization import Asked, Hardware
from lmi.config.resolution import Fate, Resolution, Setting, Weights
from lmi.config.secure import is_secure, violations
from lmi.config.sources import Candidate
from lmi.config.values import Values, get, merge, text_of
from lmi.config.variables import VARIABLES, Layer
from lmi.config.vllm_arguments import arguments
from lmi.config.weights import Files, files, refusals, weigh
from lmi.core import ConfigError


def resolve(
    folder: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, str] | None = None,
    *,
    parameters: Mapping[str, str] | None = None,
    installed: Collection[str],
    front: Front = Front.EMBEDDED,
    vllm: str | None = None,
    hardware: Hardware | None = None,
) -> Resolution:
    """The configuration of the model in `folder` (None: the environment alone says what to serve).

    flags: `--set` keys, spelt as in serving.properties, and their values. parameters: what the DJL
    model server told its worker. installed: engines that can run here, by our names. front: who
    takes the requests. vllm: the release of vLLM that would run, None for any that is recorded.
    hardware: what the model would run on, None for any.
    Raises ConfigErrors with every problem found.
    """
    try:
        found, candidates = _gather(folder, environ, flags or {}, parameters or {})
    except ConfigError as error:
        raise ConfigErrors([error]) from error
    candidates, warnings = _with_prefix(candidates)
    known = [candidate for candidate in candidates if candidate.key in spellings()]
    unknown = [candidate for candidate in candidates if candidate.key not in spellings()]
    own_code = takes_requests(known, found)

    values, unreadable = merge(known, own_code=own_code)
    problems = list(unreadable.values())
    tolerant = get(values, "option.unknown_options") == "warn"
    misspelt = sources.misspelt(environ)
    if tolerant:
        warnings += (f"{problem}; ignored" for problem in misspelt)
    else:
        problems += misspelt
    choice = None
    asked, model = Asked(), Files(None, None)
    if _DECIDING.isdisjoint(unreadable):
        try:
            model = files(values, found)
            asked = model.asked(values, hardware, vllm)
            choice = choose(_question(values, unknown, found, own_code, model, asked), installed)
        except NoEngine as error:
            problems.append(_no_engine(error, values, found))
        except ConfigError as error:
            problems.append(error)
    engine = None if choice is None else choice.engine
    if get(values, "engine") in FOREIGN_ENGINES:
        unknown = []  # they belong to that engine, which is the problem
    judgement = judge(
        values, unknown, engine=engine, own_code=own_code, tolerant=tolerant, front=front, vllm=vllm
    )
    weights = Weights()
    if engine is not None and not own_code:
        weights = weigh(
            engine,
            asked,
            values,
            judgement,
            known=model,
            folder=found,
            secure=is_secure(environ),
        )
    problems += judgement.problems
    problems += violations(environ, values, found)
    if choice is not None:
        problems += contradictions(choice, values, found)
    if problems or choice is None:
        raise ConfigErrors(sorted(problems, key=lambda problem: _position(problem.source)))
    try:
        spec = assemble(
            choice,
            values,
            judgement.options,
            judgement.user_options,
            {setting.key: setting.text for setting in judgement.settings},
            found,
            own_code=own_code,
        )
    except ConfigError as error:
        raise ConfigErrors([error]) from error
    settings = sorted(judgement.settings, key=lambda setting: _position(setting.origin))
    if "engine" not in values:
        origin = f"automatic: {choice.reason}"
        settings.append(
            Setting("engine", choice.engine, choice.engine, origin, Fate.USED, "launcher")
        )
    variables = tuple(
        (name, VARIABLES[name].doc)
        for name, text in sorted(environ.items())
        if text and name in VARIABLES and not VARIABLES[name].keys
    )
    return Resolution(
        spec,
        tuple(settings),
        defaults(values, choice.engine),
        variables,
        (*warnings, *judgement.warnings),
        weights,
    )


# A key without its prefix loses against the same key with it, wherever that stands in the file.
_AFTER_ALL_LINES = 1_000_000

# Options that the engine is chosen from: while one of them is wrong there is no choice.
_DECIDING = frozenset({"engine", "option.rolling_batch", "option.task", "option.entryPoint"})


def _gather(
    folder: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, str],
    parameters: Mapping[str, str],
) -> tuple[Folder | None, list[Candidate]]:
    """Reads every source. Raises ConfigError for a file that can't be read."""
    candidates = sources.from_flags(flags) + sources.from_environment(environ)
    server_file = sources.config_properties(environ)
    if server_file is not None:
        candidates += sources.from_file(server_file, Layer.CONFIG)
    found = _folder(folder, environ)
    if found is not None and isfile(found.path / sources.PROPERTIES):
        candidates += sources.from_file(found.path / sources.PROPERTIES, Layer.FILE)
    features = bool(environ.get("SERVING_FEATURES"))
    candidates += from_parameters(parameters, candidates, features=features)
    return found, candidates


def _folder(folder: Path | None, environ: Mapping[str, str]) -> Folder | None:
    """The model's folder; where none is given, HF_MODEL_ID may name one."""
    if folder is None:
        named = environ.get("HF_MODEL_ID")
        if not named or not isdir(named):
            return None
        folder = Path(named)
    return look(descend(folder))


def _with_prefix(candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[str]]:
    """Gives an option written without `option.` its prefix, with a warning each.

    The reference hands such keys to its Python side all the same, which reads them.
    """
    found, warnings = [], []
    for candidate in candidates:
        full = f"option.{candidate.key}"
        if candidate.key not in spellings() and (
            full in spellings() or candidate.key in arguments()
        ):
            warnings.append(
                f"{candidate.written} (from {candidate.origin}): read as {full}; write the prefix"
            )
            found.append(replace(candidate, key=full, order=candidate.order + _AFTER_ALL_LINES))
        else:
            found.append(candidate)
    return found, warnings


def _question(
    values: Values,
    unknown: Sequence[Candidate],
    folder: Folder | None,
    own_code: bool,
    model: Files,
    asked: Asked,
) -> Question:
    """What the choice of the engine depends on."""
    features = get(values, "features")
    return Question(
        engine=text_of(values, "engine"),
        rolling_batch=text_of(values, "option.rolling_batch"),
        task=text_of(values, "option.task"),
        entry_point=text_of(values, "option.entryPoint"),
        has_custom_handler=own_code,
        features=tuple(map(str, features)) if isinstance(features, tuple) else (),
        model=model.model,
        classic_model=folder is not None and folder.classic is not None,
        unable={**dict.fromkeys(unable(values, unknown), ""), **refusals(asked, values)},
        async_mode=get(values, "option.async_mode") is True,
    )


def _no_engine(error: NoEngine, values: Values, folder: Folder | None) -> ConfigError:
    key = "features" if error.option == "SERVING_FEATURES" else error.option
    if key is not None and key in values:
        return values[key].error(str(error))
    return ConfigError(key or "engine", None, place(folder), str(error))


def _position(source: str) -> tuple[str, int]:
    """Sorts by file and line, then by variable."""
    place, _, line = source.rpartition(":")
    return (place, int(line)) if line.isdecimal() else (source, 0)
