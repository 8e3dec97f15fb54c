"""How a handler is run, out of a ModelSpec: which module, how many workers, on which devices."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from lmi.config.spec import CodeSettings, ModelSpec
from lmi.core import ConfigError
from lmi.custom import FunctionSpec, Seat, find_requirements
from lmi.custom.stock import STOCK
from lmi.engines import BoundSpec
from lmi.engines.devices import visible_gpus

PROCESSOR: Final = -1  # as a device's index
# Whoever starts the workers has gathered the batch as well: its members come at once.
GATHERED_SECONDS: Final = 0.005

_STOCK_BY_LIBRARY: Final[Mapping[str | None, str]] = MappingProxyType(
    {
        "sklearn": "djl_python.sklearn_handler",
        "xgboost": "djl_python.xgboost_handler",
        None: "djl_python.huggingface",
    }
)
_COUNTS: Final = ("tensor_parallel_degree", "pipeline_parallel_degree", "cluster_size")
_WHOLE: Final = re.compile(r"\d{1,9}", re.ASCII)


def stock_handler(spec: ModelSpec) -> str | None:
    """The stock handler that answers where the model's own code does not, by the name that users
    know; None where none would."""
    if spec.entry_point is not None and not spec.has_custom_handler:
        return spec.entry_point
    if spec.has_custom_handler and spec.classic is None and spec.model_id is None:
        return None
    return _STOCK_BY_LIBRARY[spec.classic]


def function_spec(
    bound: BoundSpec, environ: Mapping[str, str], seat: Seat | None = None
) -> FunctionSpec:
    """What the handler's workers are told. Raises ConfigError for devices that are not here.

    seat: the place of the only worker, where somebody else starts the others. Without one there are
    as many as there are devices, with the configured number of workers on each.
    """
    spec = bound.spec
    code = spec.code
    assert code is not None, "an engine is no handler"
    folder = spec.folder or bound.path
    assert folder is not None, "there is a handler, so there is a folder or a model"
    folder = folder.absolute()  # a worker's current folder is this one
    seats = (seat,) if seat is not None else _seats(spec, code, environ)
    least, most = (1, 1) if seat is not None else _workers(code, seats)
    name = stock_handler(spec)
    stock = None if name is None else STOCK.get(name, name)
    own = spec.entry_point if spec.has_custom_handler else None
    named = own is None and spec.entry_point is not None  # a stock one: no model.py goes before it
    return FunctionSpec(
        name=spec.name,
        folder=folder,
        entry_point=stock if named else own,
        fallback=None if named else stock,
        handler=code.handler,
        properties=properties(bound),
        python=code.python or sys.executable,
        environ=code.environ,
        workers=least,
        max_workers=most,
        max_idle=code.max_idle,
        seats=seats,
        batch_size=code.batch_size,
        max_batch_delay=code.max_batch_delay
        if seat is None
        else min(code.max_batch_delay, GATHERED_SECONDS),
        predict_timeout=float(spec.predict_timeout),
        loading_timeout=float(spec.model_loading_timeout),
        restart_limit=spec.retry_threshold,
        requirements=find_requirements(folder, environ),
    )


def properties(bound: BoundSpec) -> Mapping[str, str | int]:
    """What the DJL model server would tell a user's code, with the model's folder, once here."""
    spec = bound.spec
    rolling_batch = spec.engine if spec.code is None else "disable"
    found: dict[str, str | int] = {
        **spec.properties,
        "engine": "Python",
        "rolling_batch": rolling_batch,
    }
    if bound.path is not None and spec.model_id is not None:
        found["model_id"] = str(bound.path)
    for name in _COUNTS:
        text = spec.properties.get(name, "")
        if _WHOLE.fullmatch(text):
            found[name] = int(text)
    return found


def _seats(spec: ModelSpec, code: CodeSettings, environ: Mapping[str, str]) -> tuple[Seat, ...]:
    """A place for each device, or for each group of GPUs that share a model."""
    gpus = list(range(visible_gpus(environ)))
    if code.devices:
        missing = [device for device in code.devices if device not in (*gpus, PROCESSOR)]
        if missing:
            want = f"there are {len(gpus)} GPUs here, from 0"
            raise ConfigError("load_on_devices", str(missing[0]), "the configuration", want)
        gpus = [device for device in code.devices if device != PROCESSOR]
    if not gpus or PROCESSOR in code.devices:
        return (Seat(PROCESSOR),)
    degree = spec.tensor_parallel_degree
    size = len(gpus) if degree == "max" else degree
    if size is None:
        return tuple(Seat(gpu) for gpu in gpus)
    if size > len(gpus):
        want = f"there are {len(gpus)} GPUs for it"
        raise ConfigError("option.tensor_parallel_degree", str(size), "the configuration", want)
    names = (environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, gpus))).split(",")
    return tuple(
        Seat(0, {"CUDA_VISIBLE_DEVICES": ",".join(names[gpu] for gpu in gpus[at : at + size])})
        for at in range(0, len(gpus) - size + 1, size)
    )


def _workers(code: CodeSettings, seats: tuple[Seat, ...]) -> tuple[int, int]:
    """Processes at least and at most, over all places."""
    on_processor = all(seat.device_id == PROCESSOR for seat in seats)
    kind = code.cpu_workers if on_processor else code.gpu_workers
    least = kind.least or code.workers.least or 1
    most = kind.most or code.workers.most or least
    return least * len(seats), max(least, most) * len(seats)
