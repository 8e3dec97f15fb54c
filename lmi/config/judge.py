"""What becomes of each setting under an engine: used, not needed, the user's own, or an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from lmi.config.front import JAVA, Front
from lmi.config.nearest import Names, distance
from lmi.config.options import ENGINES, TABLE, Option, Verdict, spellings
from lmi.config.present import masked
from lmi.config.resolution import Fate, Overridden, Setting
from lmi.config.sources import Candidate, variable_names
from lmi.config.values import Value, Values
from lmi.config.variables import Layer
from lmi.config.vllm_arguments import Argument, arguments
from lmi.config.vllm_rules import parse
from lmi.core import ConfigError

_OWN_CODE = "model.py"
_VLLM = "an argument of vLLM"
_FAR = 99  # edits: more than any two names are apart


@dataclass(slots=True)
class Judgement:
    """The outcome, option by option. options: parsed, by short key. user_options: texts."""

    settings: list[Setting] = field(default_factory=list)
    problems: list[ConfigError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    options: dict[str, object] = field(default_factory=dict)
    user_options: dict[str, str] = field(default_factory=dict)


def judge(
    values: Values,
    unknown: Sequence[Candidate],
    *,
    engine: str | None,
    own_code: bool,
    tolerant: bool,
    front: Front = Front.EMBEDDED,
    vllm: str | None = None,
) -> Judgement:
    """Judges every setting. engine: None where none could be chosen; then only spelling is judged.

    own_code: the model's own handler takes the requests. tolerant: unknown options are warnings.
    front: the DJL model server reads every key of the server. vllm: the release of vLLM that would
    run; None: any.
    """
    outcome = Judgement()
    for value in values.values():
        _known(outcome, value, engine, own_code, front)
    seen: dict[str, list[Candidate]] = {}
    for candidate in unknown:
        seen.setdefault(candidate.key, []).append(candidate)
    for group in seen.values():
        group.sort(key=lambda candidate: (-candidate.layer, candidate.order))
        _unknown(outcome, group, engine, own_code, tolerant, vllm)
    return outcome


def _known(
    outcome: Judgement, value: Value, engine: str | None, own_code: bool, front: Front
) -> None:
    option = value.option
    if engine is None:
        return
    verdict, reason = option.use(engine)
    limit = option.limits.get(engine)
    setting = Setting(
        option.key,
        value.text,
        value.value,
        value.winner.origin,
        Fate.USED,
        consumer(option, engine),
        overridden=value.overridden,
        secret=option.secret,
    )
    if own_code and not option.ours_to_read:
        outcome.user_options[option.short] = value.text
        setting = replace(setting, fate=Fate.USER, consumer=_OWN_CODE)
    elif front is Front.DJL and option.server and verdict is not Verdict.USED:
        setting = replace(setting, consumer=JAVA)
    elif limit is not None and value.value not in limit.values:
        outcome.problems.append(value.error(limit.why))
        return
    elif verdict is Verdict.USED:
        if engine in option.used or option.reader == "launcher":
            outcome.options[option.short] = value.value
    elif verdict is Verdict.ADVISORY:
        setting = replace(setting, fate=Fate.ADVISORY, consumer="", note=reason)
    elif value.value in option.off or value.text == option.default:
        note = f"asks for nothing that {engine} lacks"
        setting = replace(setting, fate=Fate.ADVISORY, consumer="", note=note)
    else:
        outcome.problems.append(value.error(reason))
        return
    outcome.settings.append(setting)


def unable(values: Values, unknown: Sequence[Candidate]) -> frozenset[str]:
    """The engines that would refuse something that is set."""
    of_vllm = [candidate for candidate in unknown if _argument(candidate) is not None]
    return frozenset(
        engine
        for engine in ENGINES
        if judge(values, of_vllm, engine=engine, own_code=False, tolerant=True).problems
    )


def consumer(option: Option, engine: str) -> str:
    """Who reads an option under an engine."""
    return engine if engine in option.used else option.reader


def _unknown(
    outcome: Judgement,
    group: Sequence[Candidate],
    engine: str | None,
    own_code: bool,
    tolerant: bool,
    vllm: str | None,
) -> None:
    winner = group[0]
    overridden = tuple(Overridden(loser.text, loser.origin) for loser in group[1:])
    argument = _argument(winner)
    short = winner.key.removeprefix("option.")
    setting = Setting(
        winner.key, winner.text, winner.text, winner.origin, Fate.USED, overridden=overridden
    )
    if own_code and (argument is not None or _table_keys().one_edit(winner.key) is None):
        outcome.user_options[short] = winner.text
        outcome.settings.append(replace(setting, fate=Fate.USER, consumer=_OWN_CODE))
    elif argument is not None:
        _of_vllm(outcome, setting, argument, winner, engine, vllm)
    elif tolerant:
        note = _unknown_text(winner)
        outcome.warnings.append(f"{winner.written} (from {winner.origin}): {note}; ignored")
        outcome.settings.append(replace(setting, fate=Fate.UNKNOWN, note=note))
    else:
        outcome.problems += (
            ConfigError(
                candidate.written,
                masked(candidate.written, candidate.text),
                candidate.origin,
                _unknown_text(candidate),
            )
            for candidate in group
        )


def _argument(candidate: Candidate) -> Argument | None:
    if not candidate.key.startswith("option."):
        return None
    return arguments().get(candidate.key.removeprefix("option."))


def _of_vllm(
    outcome: Judgement,
    setting: Setting,
    argument: Argument,
    winner: Candidate,
    engine: str | None,
    vllm: str | None,
) -> None:
    def problem(want: str) -> ConfigError:
        text = masked(winner.written, winner.text)
        return ConfigError(winner.written, text, winner.origin, want)

    if engine == "echo":
        note = "the echo engine runs no model"
        outcome.settings.append(replace(setting, fate=Fate.ADVISORY, note=note))
    elif engine == "vllm":
        try:
            value = parse(argument, winner.text.strip(), vllm)
        except ValueError as error:
            outcome.problems.append(problem(str(error)))
            return
        outcome.options[argument.name] = value
        note = f"{_VLLM} {argument.first} to {argument.last}"
        outcome.settings.append(replace(setting, value=value, consumer="vllm", note=note))
    elif engine is not None:
        outcome.problems.append(problem(f"{engine} has nothing like it: it is {_VLLM}"))


def _unknown_text(candidate: Candidate) -> str:
    """What is wrong with an unknown name, and the name that was probably meant."""
    if candidate.layer in (Layer.OPTION, Layer.SERVING, Layer.SERVING_DEFAULT):
        noun, meant = "variable", _all_variables().nearest(candidate.written)
    else:
        noun, meant = "option", _nearest_key(candidate.key)
    return f"unknown {noun}" + (f"; did you mean {meant}?" if meant else "")


def _nearest_key(key: str) -> str | None:
    for prefix in ("option.", "options.", "Option.", "OPTION."):
        full = "option." + key.removeprefix(prefix)
        for same in (full, key.removeprefix(prefix)):
            if same in spellings():
                return same
    # A forgotten prefix costs nothing, so both forms are asked and a documented key wins a tie.
    meant = _all_keys().nearest(key)
    bare = None if key.startswith("option.") else _bare_keys().nearest(key)
    if bare is not None and (
        meant is None or distance(key, bare, _FAR) < distance(key, meant, _FAR)
    ):
        return f"option.{bare}"
    return meant


@cache
def _table_keys() -> Names:
    """Documented keys, then older spellings."""
    return Names((*(option.key for option in TABLE), *spellings()))


@cache
def _all_keys() -> Names:
    """Those, then vLLM's own arguments."""
    full = (*(option.key for option in TABLE), *spellings(), *(f"option.{n}" for n in arguments()))
    return Names(full)


@cache
def _bare_keys() -> Names:
    return Names(key.removeprefix("option.") for key in spellings() if key.startswith("option."))


@cache
def _all_variables() -> Names:
    return Names((*variable_names(), *(f"OPTION_{name.upper()}" for name in arguments())))


def defaults(values: Values, engine: str) -> tuple[Setting, ...]:
    """The options that the engine, the server or the launcher reads and nobody set."""
    return tuple(
        Setting(
            option.key,
            option.default or "",
            None if option.default is None else option.kind.parse(option.default),
            "default",
            Fate.DEFAULT,
            consumer(option, engine),
            secret=option.secret,
        )
        for option in TABLE
        if option.key not in values and option.use(engine).verdict is Verdict.USED
    )
