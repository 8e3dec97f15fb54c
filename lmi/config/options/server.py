"""Properties of the server: config.properties, SERVING_* variables, and serving.properties too."""

from __future__ import annotations

from lmi.config.kinds import Flag, Kind, Names, Text, Whole
from lmi.config.options.base import ANY, Option

GROUP = "The server"

_JAVA = "the DJL model server in Java reads it; the embedded server has nothing like it"
_TLS = "the embedded server speaks plain HTTP; let a proxy or the load balancer end TLS"
_CACHE = "answers are not cached"
_STATUS = Whole(100, 599)


def _used(key: str, kind: Kind, default: str | None, doc: str) -> Option:
    return Option(key, kind, doc, default=default, used=(ANY,), server=True)


def _advisory(key: str, kind: Kind, default: str | None, doc: str, reason: str = _JAVA) -> Option:
    return Option(key, kind, doc, default=default, advisory={ANY: reason}, server=True)


def _refused(key: str, kind: Kind, doc: str, reason: str, off: tuple[object, ...] = ()) -> Option:
    return Option(key, kind, doc, refused={ANY: reason}, off=off, server=True)


OPTIONS = (
    _used(
        "inference_address",
        Text("a URL such as http://0.0.0.0:8080"),
        "http://127.0.0.1:8080",
        "Where the server listens.",
    ),
    _used(
        "max_request_size",
        Whole(1),
        "67108864",
        "Most bytes of a request's body; 413 above it.",
    ),
    _used(
        "throttle_error_http_code",
        _STATUS,
        "429",
        "Status when the queue is full (the reference's default is 503).",
    ),
    _used(
        "request_id_header_key",
        Text("a header's name"),
        "x-request-id",
        "Header that brings a request's id (on SageMaker X-Amzn-SageMaker-Inference-Id).",
    ),
    *(
        _refused(
            f"cors_allowed_{name}",
            Text("a value of the header"),
            "Headers for pages of other origins.",
            "the embedded server sends no CORS headers; let a proxy add them",
        )
        for name in ("origin", "methods", "headers")
    ),
    _advisory(
        "chunked_read_timeout",
        Whole(1),
        "120",
        "Longest wait in seconds for the next piece of an answer.",
        "option.predict_timeout bounds the wait for the engine",
    ),
    _used(
        "features",
        Names("engines such as vllm or trtllm, separated by commas"),
        None,
        "The engines that an image was made for.",
    ),
    _used(
        "download_dir",
        Text("a folder"),
        None,
        "Where models are downloaded to.",
    ),
    _advisory(
        "management_address",
        Text("a URL"),
        "http://127.0.0.1:8080",
        "Where the management API listens.",
        "everything is served at inference_address",
    ),
    _advisory(
        "cluster_address",
        Text("a URL"),
        "http://127.0.0.1:8888",
        "Where machines of a cluster meet.",
        "the engine's ranks meet by themselves",
    ),
    _advisory(
        "model_store",
        Text("a folder"),
        None,
        "Folder of models.",
        "the folder given to `lmi serve` is the model's",
    ),
    _advisory(
        "load_models",
        Text("ALL, NONE or a list"),
        "ALL",
        "Models loaded at start.",
        "the folder given to `lmi serve` is the model's",
    ),
    _refused(
        "model_url_pattern",
        Text("a pattern"),
        "Models that are loaded on their first request.",
        "one model is loaded at start",
    ),
    _advisory(
        "wait_model_loading",
        Flag(),
        "true",
        "Open the port when all models are loaded.",
        "the port is open at once and /ping is red until the model answers",
    ),
    _advisory(
        "allow_multi_status",
        Flag(),
        "false",
        "/ping says 207 while models load.",
        "/ping says 503 while the model loads",
    ),
    _advisory("number_of_netty_threads", Whole(0), "0", "Network threads."),
    _advisory("use_native_io", Flag(), "true", "Native sockets."),
    _advisory("io_ratio", Whole(1, 100), "50", "Share of network work in a thread."),
    _advisory("plugin_folder", Text("a folder"), "plugins", "Java plug-ins."),
    *(
        _refused(
            f"error_rate_{name}",
            Text("a count, or count/duration"),
            "Error rate above which /ping turns red for ever.",
            "not available: /ping follows the engine itself, errors are counted in /metrics",
        )
        for name in ("any", "model", "server", "wlm")
    ),
    *(
        _advisory(
            f"{name}_http_code",
            _STATUS,
            default,
            "A status code of the DJL model server.",
            "a request's own error decides its status",
        )
        for name, default in (
            ("bad_request", "400"),
            ("wlm_error", "503"),
            ("server_error", "500"),
            ("timeout", "400"),
        )
    ),
    *(
        _refused(name, Text("a file"), "TLS.", _TLS)
        for name in ("keystore", "private_key_file", "certificate_file")
    ),
    Option(
        "keystore_pass",
        Text("a password"),
        "TLS.",
        default="changeit",
        refused={ANY: _TLS},
        off=("changeit",),
        secret=True,
        server=True,
    ),
    _refused("keystore_type", Text("a type"), "TLS.", _TLS, ("PKCS12",)),
    _advisory(
        "fail_fast",
        Flag(),
        "false",
        "End the server when a model has failed for good.",
        "/ping is red for good then, and the platform replaces the container",
    ),
    _advisory(
        "health_check_override",
        Flag(),
        "false",
        "Whether failed workers turn /ping red.",
        "/ping is green when, and only when, the engine answers",
    ),
    _advisory(
        "prometheus",
        Flag(),
        "false",
        "Serve metrics to Prometheus.",
        "they are always at /metrics",
    ),
    _advisory(
        "rolling_batch_buffer",
        Whole(1),
        "4",
        "Steps that Java collects before it sends (0.25).",
        "tokens are sent as they come",
    ),
    _advisory("opts", Text("options of the Java virtual machine"), None, "JVM options."),
    _advisory("cache_batch", Whole(1), "1", "Tokens cached at once.", _CACHE),
    _advisory("memory_cache_capacity", Whole(0), None, "Answers cached in memory.", _CACHE),
    *(
        _refused(name, Flag(), "Where answers are cached.", _CACHE, (False,))
        for name in ("cache_multitenant", "ddb_cache", "s3_cache")
    ),
    *(
        _advisory(name, Text(), None, "Where answers are cached.", _CACHE)
        for name in (
            "ddb_table_name",
            "s3_cache_bucket",
            "s3_cache_key_prefix",
            "s3_cache_autocreate",
        )
    ),
)
