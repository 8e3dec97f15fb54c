"""What the launcher needs to know of a configuration: decided, frozen, still symbolic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The server's settings. Sizes in bytes, times in seconds. None: nothing is set."""

    host: str
    port: int
    max_request_size: int
    throttle_error_http_code: int
    request_id_header_key: str
    download_dir: str | None = None


@dataclass(frozen=True, slots=True)
class Workers:
    """Processes that run a handler: at least, from the start, and at most. None: not set."""

    least: int | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class CodeSettings:
    """How a handler, the model's own or a stock one, is run. Times are in seconds.

    handler: the function's name. python: its interpreter, None for this one. environ: variables on
    top of this process's. workers: on whatever device; gpu_workers and cpu_workers where the kind
    of device is known, which beat it. devices: GPUs by index, -1 for the processor; empty for all.
    batch_size: calls that the handler takes at once.
    """

    handler: str
    python: str | None
    environ: Mapping[str, str]
    workers: Workers
    gpu_workers: Workers
    cpu_workers: Workers
    devices: tuple[int, ...]
    max_idle: float
    batch_size: int
    max_batch_delay: float


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model and how to serve it. Needs no download and no device; None: the engine decides.

    folder: where serving.properties stands (the only sub-folder of the given one, where there is
    just one). model_id: hub id, s3:// URL or folder; None where the folder itself is the model.
    reason: why this engine. model_py: the folder has a model.py. has_custom_handler: its own
    `handle`, or an entry point, takes requests. classic: the folder holds a model of that library.
    code: how the handler is run where the engine is `python`, which generates no text by itself,
    else None. options: what is set for the engine, parsed, by short key (`dtype`), defaults left
    out. user_options: what is set for the user's own code, as text, by short key. properties: what
    any code of users is told: every option that is set, as text, by short key, but for those that
    the engine is chosen from. Times are in seconds.
    """

    name: str
    folder: Path | None
    model_id: str | None
    revision: str | None
    task: str | None
    engine: str
    reason: str = field(compare=False)
    model_py: bool
    has_custom_handler: bool
    entry_point: str | None
    classic: Literal["sklearn", "xgboost"] | None
    code: CodeSettings | None

    dtype: str
    trust_remote_code: bool
    tensor_parallel_degree: int | Literal["max"] | None
    max_rolling_batch_size: int
    max_rolling_batch_prefill_tokens: int | None
    max_model_len: int | None
    block_size: int | None
    kv_cache_memory: int | None
    threads: int | None

    output_formatter: str | None
    tgi_compat: bool
    compat: Literal["0.25", "0.36", "async"]
    strict_parameters: bool

    model_loading_timeout: int
    predict_timeout: int
    drain_seconds: int
    retry_threshold: int
    job_queue_size: int

    options: Mapping[str, object]
    user_options: Mapping[str, str]
    properties: Mapping[str, str]
    server: ServerSettings

    @property
    def hooks(self) -> bool:
        """Whether a model.py stands beside an engine: its formatters, or a `handle` before it."""
        return self.model_py and self.code is None

    @property
    def model(self) -> str:
        """Where the model is: a hub id, an s3:// URL or a folder."""
        return self.model_id if self.model_id is not None else str(self.folder)
