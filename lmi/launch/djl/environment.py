"""The variables that the DJL model server is started with.

Whatever sets an option has been read: it is left out, because Java would read it again, by rules of
its own (HF_MODEL_ID adds a model, OPTION_* changes every one, SERVING_* beats the file written for
it). What only Java reads stays, and what is a variable only is written from the settings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from lmi.config import ModelSpec, Setting
from lmi.config.variables import VARIABLES
from lmi.launch.djl.properties import MARGIN_SECONDS, VARIABLES_ONLY

_READ: Final = ("OPTION_", "ARGS_", "SERVING_")
_KEPT: Final = frozenset({"SERVING_OPTS"})
# Bytes of the largest item of an answer; 20 MiB where nothing is said, too little for images.
_FIELD_BYTES: Final = 64 * 1024 * 1024
# Every answer that is waited for holds a thread of Java's common pool, and /ping needs one too.
_SPARE_THREADS: Final = 16
_MOST_THREADS: Final = 32_767  # of that pool
_HEAP: Final = "-Xmx1g"


def environment(
    environ: Mapping[str, str],
    spec: ModelSpec,
    settings: Iterable[Setting],
    *,
    cache: Path,
    home: Path,
    temporary: Path,
    log_level: str,
) -> dict[str, str]:
    """All variables of the server's process.

    cache: of engines. home: for its logs, where nobody has named one that can be written.
    temporary: for its sockets; the path must be short, and nobody else's server may use it: Java
    kills the processes whose numbers it finds there.
    """
    found = {name: text for name, text in environ.items() if not _is_read(name)}
    for setting in settings:
        if setting.key in VARIABLES_ONLY:
            found[f"SERVING_{setting.key.upper()}"] = setting.text
    found |= {
        "ENGINE_CACHE_DIR": str(cache),
        "PYTHON_EXECUTABLE": sys.executable,
        "PREDICT_TIMEOUT": str(spec.predict_timeout + MARGIN_SECONDS),
        "MODEL_LOADING_TIMEOUT": str(spec.model_loading_timeout + MARGIN_SECONDS),
        "SERVING_RETRY_THRESHOLD": "0",
        "OPT_OUT_TRACKING": "true",  # the launcher asks the cloud who it is, a second each time
        "JAVA_OPTS": _java_options(environ, spec, temporary, log_level),
    }
    found.setdefault("MAX_NETTY_BUFFER_SIZE", str(_FIELD_BYTES))
    if not os.access(found.get("MODEL_SERVER_HOME", ""), os.W_OK):
        found["MODEL_SERVER_HOME"] = str(home)
    if "OMP_NUM_THREADS" not in found:
        found["NO_OMP_NUM_THREADS"] = "true"  # else the launcher leaves the model one thread
    return found


def _is_read(name: str) -> bool:
    if name in _KEPT:
        return False
    return name.startswith(_READ) or (name in VARIABLES and bool(VARIABLES[name].keys))


def _java_options(
    environ: Mapping[str, str], spec: ModelSpec, temporary: Path, log_level: str
) -> str:
    """The virtual machine's options; the user's come last, and so win."""
    threads = spec.job_queue_size + spec.max_rolling_batch_size + _SPARE_THREADS
    options = [
        _HEAP,
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-OmitStackTraceInFastThrow",  # an error that comes often keeps saying where from
        "-Dai.djl.util.cuda.fork=true",  # counts GPUs in a process that ends and frees them
        f"-Djava.util.concurrent.ForkJoinPool.common.parallelism={min(threads, _MOST_THREADS)}",
    ]
    if log_level == "debug":
        options.append("-Dai.djl.logging.level=debug")
    options += environ.get("JAVA_OPTS", "").split()
    options.append(f"-Djava.io.tmpdir={temporary}")
    return " ".join(options)
