"""Builds the ModelSpec out of judged values: defaults filled in, addresses taken apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os.path import isdir
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar, cast

from lmi.config.choose import FUNCTIONS, Choice
from lmi.config.folder import Folder
from lmi.config.options import spellings
from lmi.config.spec import CodeSettings, ModelSpec, ServerSettings, Workers
from lmi.config.values import Values, get, text_of
from lmi.core import ConfigError

MAX_ROLLING_BATCH_SIZE = 32
"""Requests at once where nothing is set: the reference's own default."""

FORMATTERS = (
    *("json", "jsonlines", "sse", "none"),
    *("json_chat", "jsonlines_chat", "sse_chat"),
)
"""Forms of answers that need no code of the model's own."""

_PORT = 8080
_ADDRESS = re.compile(r"(?:http://)?(\[[0-9a-fA-F:.]+\]|[^/:\[\]\s]+)(?::(\d{1,5}))?/?")
_T = TypeVar("_T")

# Read by the choice of the engine or by the fields of the spec; the rest is for the engine.
_NOT_FOR_THE_ENGINE = frozenset({"engine", "rolling_batch"})
# Of those the launcher tells what came of them; variables may be secrets, and are set already.
_NOT_FOR_CODE = frozenset({"engine", "option.rolling_batch", "option.env"})


def assemble(
    choice: Choice,
    values: Values,
    options: Mapping[str, object],
    user_options: Mapping[str, str],
    properties: Mapping[str, str],
    folder: Folder | None,
    *,
    own_code: bool,
) -> ModelSpec:
    """The spec of a configuration without problems. Raises ConfigError for a bad address.

    properties: every option that is set, as text, by documented key.
    """
    read = _Reader(values)
    model_id = model_of(values, folder)
    return ModelSpec(
        name=_name(model_id, folder),
        folder=None if folder is None else folder.path,
        model_id=model_id,
        revision=text_of(values, "option.revision"),
        task=text_of(values, "option.task"),
        engine=choice.engine,
        reason=choice.reason,
        model_py=folder is not None and folder.model_py,
        has_custom_handler=own_code,
        entry_point=text_of(values, "option.entryPoint") or choice.entry_point,
        classic=None if folder is None else folder.classic,
        code=_code(read) if choice.engine == FUNCTIONS else None,
        dtype=str(options.get("dtype") or text_of(values, "option.dtype") or "auto"),
        trust_remote_code=read.required("option.trust_remote_code", bool),
        tensor_parallel_degree=cast(
            "int | Literal['max'] | None", get(values, "option.tensor_parallel_degree")
        ),
        max_rolling_batch_size=read.optional("option.max_rolling_batch_size", int)
        or MAX_ROLLING_BATCH_SIZE,
        max_rolling_batch_prefill_tokens=read.optional(
            "option.max_rolling_batch_prefill_tokens", int
        ),
        max_model_len=read.optional("option.max_model_len", int),
        block_size=read.optional("option.block_size", int),
        kv_cache_memory=read.optional("option.kv_cache_memory", int),
        threads=read.optional("option.threads", int),
        output_formatter=text_of(values, "option.output_formatter"),
        tgi_compat=read.required("option.tgi_compat", bool),
        compat=cast("Literal['0.25', '0.36', 'async']", read.required("option.compat", str)),
        strict_parameters=read.required("option.strict_parameters", bool),
        model_loading_timeout=read.required("option.model_loading_timeout", int),
        predict_timeout=read.required("option.predict_timeout", int),
        drain_seconds=read.required("option.drain_seconds", int),
        retry_threshold=read.required("retry_threshold", int),
        job_queue_size=read.required("job_queue_size", int),
        options=MappingProxyType(
            {key: value for key, value in options.items() if key not in _NOT_FOR_THE_ENGINE}
        ),
        user_options=MappingProxyType(dict(user_options)),
        properties=MappingProxyType(
            {
                key.removeprefix("option."): text
                for key, text in properties.items()
                if key not in _NOT_FOR_CODE and not (key in spellings() and spellings()[key].server)
            }
        ),
        server=_server(values, read),
    )


def model_of(values: Values, folder: Folder | None) -> str | None:
    """Where the model is, or None for the folder itself."""
    named = text_of(values, "option.model_id") or text_of(values, "option.model_dir")
    if named is None:
        return None
    if folder is not None and isdir(named) and Path(named).samefile(folder.path):
        return None
    return named


class _Reader:
    """Values by type, or the table's defaults."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def optional(self, key: str, kind: type[_T]) -> _T | None:
        """The value, or None where it is unset or one of a number's words (such as auto)."""
        value = get(self._values, key)
        return value if isinstance(value, kind) else None

    def required(self, key: str, kind: type[_T]) -> _T:
        """The value or the default; the table has one for each key that is asked for here."""
        value = self.optional(key, kind)
        if value is not None:
            return value
        option = spellings()[key]
        return cast(_T, option.kind.parse(option.default or ""))


def _code(read: _Reader) -> CodeSettings:
    def workers(prefix: str) -> Workers:
        least, most = (read.optional(f"{prefix}{end}Workers", int) for end in ("min", "max"))
        return Workers(least, most)

    return CodeSettings(
        handler=read.required("option.handler", str),
        python=read.optional("option.pythonExecutable", str),
        environ=read.optional("option.env", MappingProxyType) or MappingProxyType({}),
        workers=workers(""),
        gpu_workers=workers("gpu."),
        cpu_workers=workers("cpu."),
        devices=read.optional("load_on_devices", tuple) or (),
        max_idle=float(read.required("max_idle_time", int)),
        batch_size=read.required("batch_size", int),
        max_batch_delay=read.required("max_batch_delay", int) / 1000,
    )


def _server(values: Values, read: _Reader) -> ServerSettings:
    host, port = _address(values)
    return ServerSettings(
        host=host,
        port=port,
        max_request_size=read.required("max_request_size", int),
        throttle_error_http_code=read.required("throttle_error_http_code", int),
        request_id_header_key=read.required("request_id_header_key", str),
        download_dir=text_of(values, "download_dir"),
    )


def _address(values: Values) -> tuple[str, int]:
    value = values.get("inference_address")
    text = spellings()["inference_address"].default if value is None else value.text
    match = _ADDRESS.fullmatch(text or "")
    if match is not None and int(match[2] or _PORT) < 65_536:
        return match[1].strip("[]"), int(match[2] or _PORT)
    want = "expected http://HOST:PORT; TLS and unix sockets are a proxy's business"
    raise (
        ConfigError("inference_address", text, "default", want)
        if value is None
        else value.error(want)
    )


def _name(model_id: str | None, folder: Folder | None) -> str:
    """The model's name as the reference makes it: the folder's or the id's, in word characters."""
    name = folder.path.resolve().name if folder is not None else (model_id or "")
    return re.sub(r"\W", "_", name) or "model"
