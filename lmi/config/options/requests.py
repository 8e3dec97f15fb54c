"""Options of requests, answers and the model's life, and the keys without `option.`."""

from __future__ import annotations

from lmi.config.kinds import Checked, Choice, Flag, Text, Whole
from lmi.config.options.base import ANY, Option
from lmi.config.options.workers import devices, variables

GROUP = "Requests, answers and the model's life"

# SIGTERM to SIGKILL is 30 s on Kubernetes and on SageMaker; the rest is for closing down.
DRAIN_SECONDS = "25"
_ONE_PROCESS = "the engine runs in one process and batches by itself"
_AT_ONCE = "requests join the running batch at once"

OPTIONS = (
    Option(
        "option.output_formatter",
        Text("json, jsonlines, sse, or the name of a formatter of the model's own code"),
        "Form of the answers.",
        used=(ANY,),
    ),
    Option(
        "option.input_formatter",
        Text("the name of a formatter of the model's own code"),
        "Reads the requests.",
        refused={ANY: "mark the function in model.py with @input_formatter instead"},
    ),
    Option(
        "option.tgi_compat",
        Flag(),
        "Answer as text-generation-inference does.",
        default="false",
        used=(ANY,),
        since="0.28",
    ),
    Option(
        "option.bedrock_compat",
        Flag(),
        "Answer as Bedrock's custom models do.",
        default="false",
        used=("python",),
        off=(False,),
        since="0.28",
    ),
    Option(
        "option.enable_streaming",
        Choice(("true", "false", "huggingface")),
        "Stream answers; older than the request's own stream parameter.",
        default="false",
        used=("python",),
        advisory={ANY: "each request says whether its answer is streamed"},
    ),
    Option(
        "option.stop_sequence",
        Text('a list such as ["a","b"]'),
        "Strings that end every answer.",
        used=("python",),
        refused={ANY: "requests bring their stop strings: parameters.stop"},
    ),
    Option(
        "option.max_new_tokens",
        Whole(1),
        "Tokens of an answer: not an option but a parameter of requests.",
        advisory={
            ANY: "each request says it: parameters.max_new_tokens (LMI ignores the option too)"
        },
    ),
    Option(
        "option.compat",
        Choice(("0.25", "0.36", "async")),
        "Whose answers are given: those of 0.36's rolling batch, of 0.25, or of 0.36's async mode.",
        default="0.36",
        used=(ANY,),
        ours=True,
    ),
    Option(
        "option.strict_parameters",
        Flag(),
        "Refuse a request with a parameter that nobody knows, instead of saying so in a header.",
        default="false",
        used=(ANY,),
        ours=True,
    ),
    Option(
        "option.unknown_options",
        Choice(("error", "warn")),
        "What an unknown option does to start-up. warn is for migrations.",
        default="error",
        used=(ANY,),
        ours=True,
    ),
    Option(
        "option.drain_seconds",
        Whole(0, 86_400),
        "Seconds that live requests have to finish after SIGTERM.",
        default=DRAIN_SECONDS,
        used=(ANY,),
        ours=True,
    ),
    Option(
        "option.predict_timeout",
        Whole(1),
        "Seconds without any progress after which the engine counts as hung.",
        default="240",
        used=(ANY,),
    ),
    Option(
        "option.model_loading_timeout",
        Whole(1),
        "Seconds that loading may take.",
        default="1200",
        used=(ANY,),
    ),
    Option(
        "retry_threshold",
        Whole(0),
        "Failures of the engine after which it stays down (the reference's default is 0).",
        default="3",
        aliases=("option.retry_threshold",),
        used=(ANY,),
    ),
    Option(
        "option.parallel_loading",
        Flag(),
        "Load on several devices at once.",
        default="false",
        advisory={
            "python": "workers always load at the same time",
            ANY: "the engine loads its own ranks",
        },
    ),
    Option(
        "option.entryPoint",
        Text("a module, a file in the folder, or a URL"),
        "The handler: code that takes requests.",
        aliases=("option.entry_point",),
        used=(ANY,),
    ),
    Option(
        "option.handler",
        Text("a function's name"),
        "Function of the entry point that takes requests.",
        default="handle",
        used=("python",),
        runs_code=True,
        advisory={ANY: "it is about the user's own code, of which there is none"},
    ),
    Option(
        "option.pythonExecutable",
        Text("a program"),
        "Python for the model's own code.",
        used=("python",),
        runs_code=True,
        advisory={ANY: "the engine runs in the interpreter of this installation"},
    ),
    Option(
        "option.env",
        Checked("k=v, separated by commas", variables),
        "Variables for the worker's process.",
        used=("python",),
        runs_code=True,
        refused={ANY: "set the variables for lmi itself"},
    ),
    Option(
        "option.enable_venv",
        Flag(),
        "A virtual environment for the model's own requirements.",
        default="false",
        advisory={
            "python": "the model's own requirements always have one",
            ANY: "the engine runs in the environment of this installation",
        },
        since="0.29",
    ),
    Option(
        "option.enable_stateful_sessions",
        Flag(),
        "Keep sessions of clients.",
        used=("python",),
        advisory={ANY: "this engine keeps no sessions; requests that ask for one are told so"},
        since="0.33",
    ),
    *(
        Option(
            f"option.sessions_{name}",
            kind,
            doc,
            default=default,
            used=("python",),
            advisory={ANY: "this engine keeps no sessions"},
            since="0.33",
        )
        for name, kind, default, doc in (
            ("expiration", Whole(0), "1200", "Seconds that a session is kept."),
            ("path", Text("a folder"), "/dev/shm/djl_sessions", "Where sessions are kept."),
            ("s3url", Text("s3://"), None, "Where sessions are saved at the end."),
        )
    ),
    Option(
        "option.use_passive_workers",
        Flag(),
        "Requests go to rank 0 only.",
        default="true",
        advisory={ANY: "ranks take their work from rank 0"},
        since="0.29",
    ),
    Option(
        "option.metric_dimension",
        Text("a name"),
        "A dimension added to the model's metrics.",
        advisory={ANY: "metrics carry the model's name"},
    ),
    *(
        Option(
            key,
            kind,
            doc,
            default=default,
            aliases=(f"option.{key}",),
            advisory={ANY: reason},
        )
        for key, kind, default, doc, reason in (
            (
                "log_request_metric",
                Flag(),
                "false",
                "Record metrics of each request.",
                "they are always in /metrics",
            ),
            (
                "metrics_aggregation",
                Whole(1),
                "1000",
                "Requests that a percentile is taken over.",
                "/metrics has histograms",
            ),
        )
    ),
    *(
        Option(
            prefix + key,
            Whole(1),
            doc,
            used=("python",),
            runs_code=True,
            advisory={ANY: _ONE_PROCESS},
        )
        for prefix in ("", "gpu.", "cpu.")
        for key, doc in (("minWorkers", "Workers at start."), ("maxWorkers", "Most workers."))
    ),
    *(
        Option(
            f"{prefix}{key}",
            Whole(-1),
            doc,
            default=default,
            advisory={ANY: "memory is planned by the engine"},
        )
        for prefix in ("", "gpu.")
        for key, default, doc in (
            ("required_memory_mb", "0", "MiB that must be free for the model."),
            ("reserved_memory_mb", "500", "MiB that must stay free."),
        )
    ),
    Option(
        "batch_size",
        Whole(1),
        "Requests that a handler takes at once.",
        default="1",
        aliases=("max_dynamic_batch_size", "option.batch_size"),
        used=("python", "deepspeed"),
        runs_code=True,
        advisory={ANY: _AT_ONCE},
    ),
    Option(
        "max_batch_delay",
        Whole(0),
        "Milliseconds that a batch waits to fill.",
        default="100",
        used=("python", "deepspeed"),
        runs_code=True,
        advisory={ANY: _AT_ONCE},
    ),
    Option(
        "max_idle_time",
        Whole(0),
        "Seconds after which an idle extra worker ends.",
        default="60",
        used=("python",),
        runs_code=True,
        advisory={ANY: _ONE_PROCESS},
    ),
    Option(
        "load_on_devices",
        Checked("GPUs such as 0;1, -1 for the processor, or *", devices),
        "Devices that the model is loaded on.",
        default="*",
        used=("python",),
        runs_code=True,
        advisory={ANY: "the engine takes the devices that it sees"},
    ),
    Option(
        "job_queue_size",
        Whole(1),
        "Requests that may wait; the next one is told to come back later.",
        default="1000",
        used=(ANY,),
    ),
)
