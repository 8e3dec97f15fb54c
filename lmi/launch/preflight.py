"""What can't run as it is configured, found before any download or device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from lmi.config import ConfigErrors, ModelSpec, Resolution
from lmi.config.choose import DEEPSPEED_HANDLER
from lmi.config.weights import QUANTIZE
from lmi.core import ConfigError
from lmi.custom.loading import find_file
from lmi.custom.stock import REFUSED, STOCK
from lmi.custom.stock.deepspeed_options import DeepSpeedOptions
from lmi.dist.config import DistConfig
from lmi.dist.parallel.degrees import wanted
from lmi.launch.function import stock_handler

DEGREE: Final = "option.tensor_parallel_degree"
ENTRY_POINT: Final = "option.entryPoint"

# Engines that divide a model themselves, and handlers, whose own business it is.
_DIVIDE: Final = frozenset({"vllm", "python", "trtllm", "deepspeed"})
# What a stock handler needs beside this installation's own packages.
_NEEDS: Final[Mapping[str, str]] = {
    "djl_python.sklearn_handler": "sklearn",
    "djl_python.xgboost_handler": "xgboost",
    DEEPSPEED_HANDLER: "deepspeed",
}
_EXTRAS: Final[Mapping[str, str]] = {"deepspeed": "deepspeed"}  # and else `handlers`


def preflight(resolution: Resolution) -> None:
    """Raise ConfigErrors for a configuration that is right, and that can't run here.

    A model whose files are not here yet is looked at when it is loaded.
    """
    problems = [
        *_of_the_degree(resolution),
        *_of_the_weights(resolution),
        *_of_the_handler(resolution),
    ]
    if problems:
        raise ConfigErrors(problems)


def _of_the_degree(resolution: Resolution) -> Iterator[ConfigError]:
    spec = resolution.spec
    asked = spec.tensor_parallel_degree
    if not isinstance(asked, int) or asked == 1 or spec.engine in _DIVIDE:
        return
    if spec.engine == "lmi-dist":
        want = _divided(spec, asked)
    else:
        want = f"{spec.engine} runs on one device in this release; expected 1"
    if want is not None:
        yield ConfigError(DEGREE, str(asked), _origin(resolution, DEGREE), want)


def _divided(spec: ModelSpec, degree: int) -> str | None:
    """Why LMI-Dist can't divide the model so, as far as that can be known now."""
    folder = Path(spec.model)
    if not (folder / "config.json").is_file():
        return None
    return wanted(DistConfig(folder, tensor_parallel=degree))


def _of_the_weights(resolution: Resolution) -> Iterator[ConfigError]:
    """Libraries that the quantised weights need, and that are not here."""
    weights = resolution.weights
    missing = [name for name in weights.needs if find_spec(name) is None]
    if missing:
        want = f"it needs {' and '.join(missing)}, not installed here: install lmi[quantize]"
        text = weights.method or weights.checkpoint
        yield ConfigError(QUANTIZE, text, _origin(resolution, QUANTIZE), want)


def _of_the_handler(resolution: Resolution) -> Iterator[ConfigError]:
    """A handler that is not there: a stock one, its library, or the user's own file or module."""
    spec = resolution.spec
    if spec.code is None:
        return
    named = spec.entry_point
    origin = _origin(resolution, ENTRY_POINT)
    if named is not None and spec.has_custom_handler:
        yield from _of_the_own(spec, named, origin)
        return
    stock = stock_handler(spec)
    if stock is None or (spec.has_custom_handler and stock not in _NEEDS):
        return
    if stock in REFUSED:
        yield ConfigError(ENTRY_POINT, stock, origin, REFUSED[stock])
    elif stock not in STOCK:
        want = f"there is no such stock handler; expected one of {', '.join(STOCK)}"
        yield ConfigError(ENTRY_POINT, stock, origin, want)
    elif stock in _NEEDS and spec.code.python is None and find_spec(_NEEDS[stock]) is None:
        extra = _EXTRAS.get(_NEEDS[stock], "handlers")
        want = f"it needs {_NEEDS[stock]}, which is not installed: install lmi[{extra}]"
        yield ConfigError(ENTRY_POINT, stock, origin, want)
    elif stock == DEEPSPEED_HANDLER:
        yield from _of_deepspeed(resolution)


def _of_deepspeed(resolution: Resolution) -> Iterator[ConfigError]:
    """What its handler would refuse when it loads the model."""
    spec = resolution.spec
    try:
        DeepSpeedOptions.read({"model_dir": str(spec.folder or ""), **spec.properties})
    except ConfigError as error:
        yield ConfigError(error.option, error.value, _origin(resolution, error.option), error.want)


def _of_the_own(spec: ModelSpec, named: str, origin: str) -> Iterator[ConfigError]:
    if spec.folder is None:
        want = "there is no folder for it: give `lmi serve` the folder that holds it"
        yield ConfigError(ENTRY_POINT, named, origin, want)
    elif "://" in named:
        want = "code is not fetched from the network: put the file into the folder and name it"
        yield ConfigError(ENTRY_POINT, named, origin, want)
    elif named.endswith(".py"):
        try:
            find_file(spec.folder, named)
        except ConfigError as error:
            yield ConfigError(ENTRY_POINT, named, origin, error.want)


def _origin(resolution: Resolution, key: str) -> str:
    return next((each.origin for each in resolution.settings if each.key == key), "default")
