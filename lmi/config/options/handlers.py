"""Options of functions, of DeepSpeed and Neuron, of Java engines, and of quantising ahead."""

from __future__ import annotations

from lmi.config.kinds import Choice, Flag, Json, Kind, Names, Real, Text, Whole
from lmi.config.options.base import ANY, Limit, Option

_COUNT = Whole(1)
_SWITCH = Flag()
_AHEAD = "it is about quantising ahead of time, not about serving"
_NEURON = "Neuron accelerators are not supported; GPUs and CPUs are"

_Row = tuple[str, Kind, str | None, str]

_TRANSFORMERS: tuple[_Row, ...] = (
    ("device_id", Whole(-1), "-1", "The accelerator; -1 is the CPU."),
    ("load_in_8bit", _SWITCH, None, "Older spelling of option.quantize=bitsandbytes8."),
    ("load_in_4bit", _SWITCH, None, "Older spelling of option.quantize=bitsandbytes4."),
    ("disable_flash_attn", _SWITCH, "true", "Use no flash attention."),
    ("is_peft_model", _SWITCH, "false", "The folder holds an adapter; it is merged at load."),
)
_SCHEDULER: tuple[_Row, ...] = (
    ("waiting_steps", Whole(0), None, "Steps that a request may wait to be joined."),
    ("max_sparsity", Real(0.0, 1.0), "0.33", "Most padding in a batch."),
    ("max_splits", Whole(1), "3", "Parts that a batch may be split into."),
    ("multi_gpu", Text("lmi_dist_sharding"), None, "How the model is sharded."),
)
_DEEPSPEED: tuple[_Row, ...] = (
    (
        "smoothquant_alpha",
        Real(0.0, 1.0),
        None,
        "Strength of SmoothQuant: 0 leaves the activations as they are, 1 moves all of their "
        "outliers into the weights. Unset: 0.5.",
    ),
    ("max_tokens", _COUNT, "1024", "Longest prompt and answer together."),
    ("low_cpu_mem_usage", _SWITCH, "true", "Load with little host memory."),
    ("enable_cuda_graph", _SWITCH, "false", "Capture CUDA graphs."),
    ("triangular_masking", _SWITCH, "true", "Causal attention."),
    ("return_tuple", _SWITCH, "true", "Layers return tuples."),
    ("training_mp_size", _COUNT, "1", "Model parallel degree of the training."),
    ("checkpoint", Text("a file"), None, "A checkpoint's description."),
    ("deepspeed_config_path", Text("a file"), None, "DeepSpeed's own configuration."),
)
_NEURONX: tuple[_Row, ...] = (
    ("n_positions", _COUNT, "128", "Longest prompt and answer together."),
    ("unroll", Text(), None, "Layers that are unrolled."),
    ("neuron_optimize_level", Whole(1, 3), None, "Level of the compiler."),
    ("context_length_estimate", Text(), None, "Prompt lengths that are compiled."),
    ("load_split_model", _SWITCH, "false", "The weights are split already."),
    ("compiled_graph_path", Text(), None, "Compiled graphs."),
    ("amp", Text(), None, "Number type of the computation."),
    ("group_query_attention", Text(), None, "How grouped heads are sharded."),
    ("enable_mixed_precision_accumulation", _SWITCH, "false", "Add up in float32."),
    ("enable_saturate_infinity", _SWITCH, "false", "Saturate instead of overflowing."),
    ("draft_model_compiled_path", Text(), None, "Compiled graphs of the draft model."),
    ("height", _COUNT, "512", "Height of images."),
    ("width", _COUNT, "512", "Width of images."),
    ("num_images_per_prompt", _COUNT, "1", "Images for a prompt."),
    ("use_stable_diffusion", _SWITCH, None, "The model makes images."),
    ("use_auth_token", Text(), None, "Token of the hub."),
    ("on_device_embedding", _SWITCH, None, "Embed on the device."),
    ("on_device_generation", Json(), None, "Sample on the device."),
    ("shard_over_sequence", _SWITCH, None, "Shard attention over the sequence."),
    ("fuse_qkv", _SWITCH, None, "Fuse the projections."),
    ("attention_layout", Text(), None, "Layout of attention."),
    ("collectives_layout", Text(), None, "Layout of collectives."),
    ("cache_layout", Text(), None, "Layout of the cache."),
    ("model_loader", Text(), None, "Which Neuron library loads the model."),
    ("rolling_batch_strategy", Text(), None, "How the batch is planned."),
    ("continuous_batching", _SWITCH, None, "Continuous batching."),
    ("partition_schema", Text(), None, "How compiled models are stored."),
    ("sequence_parallel", Text(), None, "Sequence parallelism."),
    ("compilation_worker_count", _COUNT, None, "Processes of the compiler."),
)
_CLASSIC: tuple[_Row, ...] = (
    (
        "model_format",
        Choice(("skops", "joblib", "pickle", "cloudpickle", "json", "ubj", "xgb")),
        None,
        "Format of a sklearn or XGBoost model.",
    ),
    ("skops_trusted_types", Names("types separated by commas"), None, "Types that skops may load."),
    ("trust_insecure_model_files", _SWITCH, "false", "Load pickled models."),
    ("default_accept", Text("a content type"), "application/json", "Form where Accept is */*."),
)
_PARTITION: tuple[_Row, ...] = (
    ("save_mp_checkpoint_path", Text("a folder or s3://"), None, "Where the result is saved."),
    ("upload_checkpoints_s3url", Text("s3://"), None, "Older form of that."),
    ("partition_handler", Text("a function's name"), "partition", "Function that partitions."),
    ("calib_size", _COUNT, "512", "Texts of calibration."),
    ("awq_zero_point", _SWITCH, "true", "Quantise with zero points."),
    ("awq_block_size", _COUNT, "128", "Weights that share a scale."),
    ("awq_weight_bit_width", _COUNT, "4", "Bits of a weight."),
    ("awq_mm_version", Text(), "GEMM", "Kernels of AWQ."),
    ("awq_ignore_layers", Names("layers separated by commas"), None, "Layers left as they are."),
    ("fp8_scheme", Text(), "FP8", "Scheme of FP8."),
    ("fp8_activation_scheme", Text("static or dynamic"), None, "When activations are scaled."),
    ("fp8_ignore", Names("layers separated by commas"), "lm_head", "Layers left as they are."),
)
_DECODING = Option(
    "option.decoding_strategy",
    Choice(("sample", "greedy", "contrastive")),
    "How tokens are chosen (scheduler).",
    default="greedy",
    used=("python",),
    refused={ANY: "requests say how tokens are chosen: parameters.do_sample"},
    off=("greedy",),
    until="0.32",
)


def _secret(name: str) -> bool:
    return name.endswith("auth_token")


_NOW = {
    "load_in_8bit": "option.quantize=bitsandbytes8",
    "load_in_4bit": "option.quantize=bitsandbytes4",
}
_SHARDED = (
    "DeepSpeed's sharded checkpoints are pickles, which can run code when they are read; load the "
    "checkpoint where you trust it, save_pretrained it as safetensors, and name that folder as "
    "option.model_id"
)
_LIMITS = {
    "triangular_masking": {
        "deepspeed": Limit(
            (True,), "text is generated by causal models, whose attention is triangular"
        )
    },
    "training_mp_size": {"deepspeed": Limit((1,), f"{_SHARDED}; expected 1")},
}


def _readers(name: str) -> tuple[str, ...]:
    """Who reads an option of DeepSpeed: its engine, and the handlers of its tasks."""
    if name == "checkpoint":
        return ()
    engines = ("deepspeed", "python", "trtllm")
    return ("lmi-dist", *engines) if name == "smoothquant_alpha" else engines


FUNCTIONS = (
    *(
        Option(
            f"option.{name}",
            kind,
            doc,
            default=default,
            used=("python",),
            refused={ANY: f"write {_NOW[name]}"} if name in _NOW else {},
            off=(False,),
        )
        for name, kind, default, doc in _TRANSFORMERS
    ),
    *(
        Option(
            f"option.{name}",
            kind,
            doc,
            default=default,
            used=("python",),
            advisory={ANY: "the batch is planned by token budget and needs no padding"},
            until="0.32",
        )
        for name, kind, default, doc in _SCHEDULER
    ),
    _DECODING,
    *(
        Option(f"option.{name}", kind, doc, default=default, used=("python",))
        for name, kind, default, doc in _CLASSIC
    ),
)
JAVA = tuple(
    Option(key, Text(), doc, advisory={ANY: "only engines of the DJL server in Java read it"})
    for key, doc in (
        ("translator", "Class that reads and writes requests."),
        ("translatorFactory", "Class that makes translators."),
        ("application", "Kind of application."),
        ("modelName", "Name of the model's files."),
        ("pooling", "How an embedding is made out of token vectors."),
        ("normalize", "Give embeddings of length 1."),
        ("reranking", "The model ranks pairs of texts."),
        ("padding", "How texts are padded."),
        ("truncation", "How texts are cut."),
        ("maxLength", "Longest text in tokens."),
        ("includeTokenTypes", "Give the model token types."),
        ("option.modelName", "Name of the model's files."),
        ("option.optimization", "Level of ONNX optimisation."),
        ("option.mapLocation", "Load on the device at once."),
    )
)
DEEPSPEED = tuple(
    Option(
        f"option.{name}",
        kind,
        doc,
        default=default,
        used=_readers(name),
        refused={"deepspeed": _SHARDED} if name == "checkpoint" else {},
        limits=_LIMITS.get(name, {}),
        advisory={"lmi-dist": "LMI-Dist needs no such help"}
        if name in ("low_cpu_mem_usage", "enable_cuda_graph", "triangular_masking", "return_tuple")
        else {},
        off=(False,),
        until="0.27",
    )
    for name, kind, default, doc in _DEEPSPEED
)
NEURONX = tuple(
    Option(
        f"option.{name}",
        kind,
        doc,
        default=default,
        used=("neuronx",),
        refused={ANY: _NEURON},
        until="0.34",
        secret=_secret(name),
    )
    for name, kind, default, doc in _NEURONX
)
PARTITION = tuple(
    Option(f"option.{name}", kind, doc, default=default, advisory={ANY: _AHEAD})
    for name, kind, default, doc in _PARTITION
)
