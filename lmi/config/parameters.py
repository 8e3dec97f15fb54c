"""What the DJL model server tells its worker, as settings: the map of the initialise message.

The map holds the model's keys without `option.`, merged from the folder's file and the environment,
and what the server has added. Its own automatic configuration is no wish of anybody's: it does not
know which engines are here, and rewrites `lmi-dist` to `vllm`. So of the keys that it writes, those
count that somebody else has set, with the value that they gave. That is why a worker decides the
same from this map as `lmi serve` does from the folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from lmi.config.options import spellings
from lmi.config.sources import Candidate
from lmi.config.variables import Layer

ORIGIN: Final = "the model server"

# Keys that the server's automatic configuration writes; values that it may have written.
_AUTOMATIC: Final[Mapping[str, frozenset[str] | None]] = {
    "engine": None,
    "option.rolling_batch": None,
    "option.async_mode": None,
    "option.mpi_mode": None,
    "option.pipeline_parallel_degree": frozenset({"1"}),
    "option.max_rolling_batch_size": frozenset({"4", "32", "256"}),
    "option.is_peft_model": None,
    "option.handler": frozenset({"handle"}),
    "minWorkers": None,
    "maxWorkers": None,
    "gpu.minWorkers": None,
    "gpu.maxWorkers": None,
    "load_on_devices": None,
}
# What it adds that is no option at all.
_ITS_OWN: Final = frozenset({"failed", "option.failed", "model_dir", "option.model_dir"})


def from_parameters(
    parameters: Mapping[str, str], said: Iterable[Candidate], *, features: bool
) -> list[Candidate]:
    """The settings of an initialise map. said: what the folder and the environment set.

    features: SERVING_FEATURES is set, from which the server chooses a rolling batch too. A value
    that the folder or the environment gives as well stays theirs, so that errors name the line.
    """
    texts: dict[str, set[str]] = {}
    for each in said:
        if each.layer < Layer.PARAMETERS:
            texts.setdefault(_documented(each.key), set()).add(each.text.strip())
    found = []
    for short, text in parameters.items():
        key = full_key(short)
        documented = _documented(key)
        if documented in _ITS_OWN or text.strip() in texts.get(documented, ()):
            continue
        if documented in texts and documented in _AUTOMATIC:
            continue
        if documented not in texts and _is_automatic(documented, text.strip(), features):
            continue
        found.append(Candidate(key, text, short, ORIGIN, Layer.PARAMETERS))
    return found


def full_key(short: str) -> str:
    """A key of the map as it stands in serving.properties; the server has cut `option.` off."""
    options = spellings()
    full = f"option.{short}"
    if full in options and options[full].key == full:
        return full
    return short if short in options else full


def _documented(key: str) -> str:
    options = spellings()
    return options[key].key if key in options else key


def _is_automatic(key: str, text: str, features: bool) -> bool:
    """Whether the server may have written this although nobody asked for it."""
    if key not in _AUTOMATIC:
        return False
    if key == "option.rolling_batch":
        return features or text == "disable"
    values = _AUTOMATIC[key]
    return values is None or text in values
