"""What the DJL model server reads of a decided model: everything that it has a default for.

The rule to keep: a key of the reference's that is left out here is one whose absence means nothing,
and `UNSET` says so of each. Java's own limits are wider than ours, so that ours are met first: it
ends a worker that keeps it waiting, and tells nobody why.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lmi.config import ModelSpec, Setting, Workers
from lmi.config.options import TABLE

# Seconds that Java waits longer than we do: our own answer, which has a reason, comes first.
MARGIN_SECONDS: Final = 30
# An answer that is not streamed reaches HTTP as one chunk, however long it takes to generate.
CHUNK_SECONDS: Final = 3600
# Java numbers the requests of a rolling batch with three digits.
MOST_IN_A_STEP: Final = 999
# Any stock name does: the worker reads our own file. Without an entry point Java looks for one.
ENTRY_POINT: Final = "djl_python.huggingface"
# Any word but `disable` turns it on; one that Java knows it might put another in place of.
ROLLING_BATCH: Final = "lmi"

# Keys of the server that are variables only.
VARIABLES_ONLY: Final = frozenset(
    {
        *("fail_fast", "health_check_override", "prometheus", "rolling_batch_buffer", "opts"),
        *("cache_batch", "memory_cache_capacity", "cache_multitenant", "ddb_cache", "s3_cache"),
        *("ddb_table_name", "s3_cache_bucket", "s3_cache_key_prefix", "s3_cache_autocreate"),
    }
)
# What we have done already, or decide ourselves.
_OURS: Final = frozenset({"features", "download_dir", "model_store", "load_models"})
# The only keys that SageMaker's secure mode allows, of those written here.
SECURE: Final = frozenset(
    {
        *("engine", "job_queue_size", "max_idle_time", "batch_size", "max_batch_delay"),
        *("minWorkers", "maxWorkers", "load_on_devices"),
        *("option.entryPoint", "option.mpi_mode", "option.rolling_batch"),
        *("option.max_rolling_batch_size", "option.parallel_loading"),
        "option.tensor_parallel_degree",
        *("option.model_loading_timeout", "option.enable_lora"),
    }
)


@dataclass(frozen=True, slots=True)
class Mode:
    """How Java talks to a worker: about each request by itself (async), about all of them in one
    step (rolling batch), or about one after the other, which alone carries bytes (neither)."""

    asynchronous: bool = False
    rolling_batch: bool = False


def mode(spec: ModelSpec, *, has_async_mode: bool, secure: bool) -> Mode:
    """The mode for a model. secure: secure mode forbids the key that turns async mode on."""
    if spec.code is not None:
        return Mode()
    asynchronous = has_async_mode and not secure
    return Mode(asynchronous, not asynchronous)


def model_properties(spec: ModelSpec, chosen: Mode, *, secure: bool) -> dict[str, str]:
    """`serving.properties` for Java, every value as text."""
    code = spec.code
    workers = 1 if code is None else most(code.workers)
    found: dict[str, object] = {
        "engine": "Python",
        "option.entryPoint": ENTRY_POINT,
        "option.handler": "handle" if code is None else code.handler,
        "option.pythonExecutable": sys.executable,
        "option.mpi_mode": False,
        "option.async_mode": chosen.asynchronous,
        "option.rolling_batch": ROLLING_BATCH if chosen.rolling_batch else "disable",
        "option.max_rolling_batch_size": min(
            MOST_IN_A_STEP, spec.max_rolling_batch_size + spec.job_queue_size
        ),
        "option.enable_lora": spec.options.get("enable_lora") is True,
        "option.enable_stateful_sessions": False,
        "option.enable_venv": False,
        "option.lmcache_auto_config": False,
        "option.parallel_loading": False,
        "option.use_passive_workers": True,
        "option.predict_timeout": spec.predict_timeout + MARGIN_SECONDS,
        "option.model_loading_timeout": spec.model_loading_timeout + MARGIN_SECONDS,
        # Our own supervisor has brought the engine back as often as it may when a worker ends.
        "retry_threshold": 0,
        "job_queue_size": spec.job_queue_size,
        "batch_size": 1 if code is None else code.batch_size,
        "max_batch_delay": 0 if code is None else round(code.max_batch_delay * 1000),
        "max_idle_time": 60 if code is None else round(code.max_idle),
        # An engine counts the devices itself; a handler runs where Java says.
        "load_on_devices": "-1" if code is None else devices(code.devices),
        "minWorkers": workers,
        "maxWorkers": workers,
        "required_memory_mb": 0,
        "reserved_memory_mb": 0,
        "gpu.required_memory_mb": 0,
        "gpu.reserved_memory_mb": 0,
        "log_request_metric": False,
        "metrics_aggregation": 1000,
    }
    for kind in ("cpu", "gpu"):
        own = Workers() if code is None else getattr(code, f"{kind}_workers")
        found[f"{kind}.minWorkers"] = found[f"{kind}.maxWorkers"] = most(own, workers)
    if code is not None and isinstance(spec.tensor_parallel_degree, int):
        found["option.tensor_parallel_degree"] = spec.tensor_parallel_degree  # GPUs of a worker
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in found.items()
        if key in SECURE or not secure
    }


def most(workers: Workers, otherwise: int = 1) -> int:
    """How many Java starts: it builds further ones in a network thread, so all from the start."""
    return workers.most or workers.least or otherwise


def devices(chosen: tuple[int, ...]) -> str:
    """`load_on_devices` out of indices."""
    return ";".join(map(str, chosen)) or "*"


def server_properties(
    spec: ModelSpec, settings: Iterable[Setting], address: str, store: Path
) -> dict[str, str]:
    """`config.properties` for Java: what is set, and the default of what is not."""
    found = {
        option.key: option.default
        for option in TABLE
        if option.server and option.default is not None
    }
    found |= {
        "management_address": address,
        "chunked_read_timeout": str(max(CHUNK_SECONDS, spec.predict_timeout + MARGIN_SECONDS)),
        "job_queue_size": str(spec.job_queue_size),
        "batch_size": "1",
        "max_batch_delay": "0",
        "max_idle_time": "60",
        "reserved_memory_mb": "0",
        "load_on_devices": "-1",
    }
    server = {option.key for option in TABLE if option.server}
    found |= {setting.key: setting.text for setting in settings if setting.key in server}
    found |= {"inference_address": address, "model_store": str(store), "load_models": "ALL"}
    keystore = {"keystore_pass", "keystore_type"} - {setting.key for setting in settings}
    left_out = VARIABLES_ONLY | (_OURS - {"model_store", "load_models"}) | keystore
    return {key: text for key, text in found.items() if key not in left_out}
