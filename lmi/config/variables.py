"""Environment variables with names of their own, and those of platforms, not ours to judge."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

_MIB = 1024 * 1024


class Layer(IntEnum):
    """Where a value comes from; a higher layer wins."""

    DEFAULT = 0
    CONFIG = 1  # config.properties
    SERVING_DEFAULT = 2  # SERVING_* for a key of the model
    OLDER = 3  # TENSOR_PARALLEL_DEGREE, HF_MODEL_ID, ...
    OPTION = 4  # OPTION_*, ARGS_*
    FILE = 5  # serving.properties
    PARAMETERS = 6  # what the DJL model server tells a worker, or `POST /models` the server
    SERVING = 7  # SERVING_* for a key of the server
    SAGEMAKER = 8
    FLAG = 9


def _same(text: str) -> str:
    return text


def _mebibytes(text: str) -> str:
    return str(int(text) * _MIB) if text.strip().isdecimal() else text


def _inverted(text: str) -> str:
    return "false" if text.lower() == "true" else "true"


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable with a name of its own.

    keys: the options it sets, all of them. read: its text as the option's text. doc: what it means
    here, for a variable that sets no option. order: of two that set the same option in one layer,
    the lower wins.
    """

    name: str
    keys: tuple[str, ...] = ()
    layer: Layer = Layer.OLDER
    read: Callable[[str], str] = _same
    doc: str = ""
    order: int = 0
    secret: bool = False


_SAGEMAKER = (
    Variable("SAGEMAKER_MAX_REQUEST_SIZE", ("max_request_size",), Layer.SAGEMAKER),
    Variable(
        "SAGEMAKER_MAX_PAYLOAD_IN_MB", ("max_request_size",), Layer.SAGEMAKER, _mebibytes, order=1
    ),
    Variable("SAGEMAKER_NUM_MODEL_WORKERS", ("minWorkers", "maxWorkers"), Layer.SAGEMAKER),
    Variable("SAGEMAKER_STARTUP_TIMEOUT", ("option.model_loading_timeout",), Layer.SAGEMAKER),
    Variable(
        "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", ("option.predict_timeout",), Layer.SAGEMAKER
    ),
    Variable(
        "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT",
        doc="default Accept of sklearn and XGBoost models; others ignore it",
    ),
)
_OLDER = (
    Variable("HF_MODEL_ID", ("option.model_id",)),
    Variable("HF_REVISION", ("option.revision",)),
    Variable("HF_MODEL_REVISION", ("option.revision",), order=1),
    Variable("HF_TASK", ("option.task",)),
    Variable("HF_TRUST_REMOTE_CODE", ("option.trust_remote_code",)),
    Variable("HF_MODEL_TRUST_REMOTE_CODE", ("option.trust_remote_code",), order=1),
    Variable("HF_MODEL_QUANTIZE", ("option.quantize",)),
    Variable("TENSOR_PARALLEL_DEGREE", ("option.tensor_parallel_degree",)),
    Variable("SM_NUM_GPUS", ("option.tensor_parallel_degree",), order=1),
    Variable("PIPELINE_PARALLEL_DEGREE", ("option.pipeline_parallel_degree",)),
    Variable("PREDICT_TIMEOUT", ("option.predict_timeout",)),
    Variable("MODEL_LOADING_TIMEOUT", ("option.model_loading_timeout",)),
    Variable("PYTHON_EXECUTABLE", ("option.pythonExecutable",)),
    Variable("DJL_ENTRY_POINT", ("option.entryPoint",)),
    Variable("LMCACHE_CONFIG_FILE", ("option.lmcache_config_file",)),
    Variable("MODEL_FORMAT", ("option.model_format",)),
    Variable("TRUST_INSECURE_MODEL_FILES", ("option.trust_insecure_model_files",)),
    Variable("SERVING_MIN_WORKERS", ("minWorkers",)),
    Variable("SERVING_MAX_WORKERS", ("maxWorkers",)),
    Variable("SERVING_RETRY_THRESHOLD", ("retry_threshold",)),
    Variable("MAX_CONCURRENT_REQUESTS", ("job_queue_size",)),
    Variable("MAX_BATCH_PREFILL_TOKENS", ("option.max_rolling_batch_prefill_tokens",)),
    Variable("MAX_BATCH_SIZE", ("option.max_rolling_batch_size",)),
    Variable("ENABLE_CUDA_GRAPHS", ("option.enforce_eager",), read=_inverted),
    Variable("CUDA_MEMORY_FRACTION", ("option.gpu_memory_utilization",)),
)
_JVM = "about the Java virtual machine, of which there is none here"
_PLATFORM_READS = "read by the library that it names"
_KNOWN = (
    Variable("HF_TOKEN", doc="token of the hub", secret=True),
    Variable("HUGGING_FACE_HUB_TOKEN", doc="older name of HF_TOKEN", secret=True),
    *(
        Variable(name, doc=_PLATFORM_READS)
        for name in (
            "HF_HOME",
            "HF_ENDPOINT",
            "HF_HUB_OFFLINE",
            "HF_HUB_ENABLE_HF_TRANSFER",
            "TRANSFORMERS_CACHE",
            "OMP_NUM_THREADS",
            "CUDA_VISIBLE_DEVICES",
        )
    ),
    *(
        Variable(name, doc=_JVM)
        for name in (
            "JAVA_HOME",
            "JAVA_OPTS",
            "SERVING_OPTS",
            "DEFAULT_JVM_OPTS",
            "SAGEMAKER_MODEL_SERVER_VMARGS",
            "MAX_NETTY_BUFFER_SIZE",
        )
    ),
    Variable("NO_OMP_NUM_THREADS", doc="told the launcher to leave OMP_NUM_THREADS alone"),
    Variable("MODEL_SERVER_HOME", doc="folder of conf/config.properties"),
    Variable("APP_HOME", doc="folder of the launcher"),
    Variable("ALLOW_REQUEST_HANDLER_OVERRIDE", doc="requests never choose a handler here"),
    Variable("DJL_CLUSTER_SIZE", doc="machines of a cluster: one here"),
    Variable("DJL_LEADER_ADDR", doc="leader of a cluster"),
    Variable("DJL_WORKER_ADDR_FORMAT", doc="workers of a cluster"),
    Variable("MASTER_ADDR", doc="where ranks meet"),
    Variable("DJL_CACHE_DIR", doc="cache of the DJL model server"),
    Variable("ENGINE_CACHE_DIR", doc="cache of the DJL model server"),
    Variable("DJL_VENV_DIR", doc="folder of virtual environments"),
    Variable("DJL_OFFLINE", doc="no downloads by the DJL model server; HF_HUB_OFFLINE here"),
    Variable("DJL_TEST_S3_NO_CREDENTIALS", doc="anonymous access to S3, in tests"),
    Variable("OPT_OUT_TRACKING", doc="no telemetry is sent here"),
    Variable("SM_TELEMETRY_LOG_REV_2022_12", doc="no telemetry is written here"),
    Variable("LMI_DEBUG_NSYS_ENABLED", doc="run under nsys by hand"),
    Variable("SAGEMAKER_MULTI_MODEL", doc="several models: one is served here"),
    Variable("SAGEMAKER_HEALTH_CHECK_OVERRIDE", doc="/ping follows the engine itself"),
    Variable("SAGEMAKER_SECURE_MODE", doc="true: what the next two forbid stops start-up"),
    Variable("SAGEMAKER_SECURITY_CONTROLS", doc="what secure mode forbids"),
    Variable("SAGEMAKER_UNTRUSTED_CHANNELS", doc="folders that secure mode looks through"),
    Variable("SAGEMAKER_SERVE_SECRET_KEY", doc="key of model-builder archives", secret=True),
)
VARIABLES: Mapping[str, Variable] = {
    variable.name: variable for variable in (*_SAGEMAKER, *_OLDER, *_KNOWN)
}
"""By name."""

# Variables of platforms that are one edit away from one of ours.
_NEIGHBOURS = frozenset({"SM_NUM_CPUS"})

# What Kubernetes and Docker's links set for a service: its name is the user's, so `option-x` gives
# OPTION_X_PORT.
_SERVICE_NAME = re.compile(
    r".+_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)",
    re.ASCII,
)
_SERVICE_VALUE = re.compile(
    r"(?:tcp|udp|sctp)(?:://.*)?|\d{1,5}|\d+\.\d+\.\d+\.\d+|[0-9a-f]*:[0-9a-f:]+", re.ASCII
)


def of_the_platform(name: str, value: str) -> bool:
    """Whether a variable is the platform's own although its name resembles one of ours.

    Service discovery counts only where the value has its form: a port, an address or a `tcp://`
    URL.
    """
    if name in _NEIGHBOURS:
        return True
    return bool(_SERVICE_NAME.fullmatch(name)) and bool(_SERVICE_VALUE.fullmatch(value))
