"""Options of the engines that generate text: memory and speed."""

from __future__ import annotations

from lmi.config.kinds import Choice, Flag, Real, Size, Text, Whole
from lmi.config.options.base import ANY, Limit, Option

GROUP = "Generation: memory and speed"

_CACHE_TYPES = Limit(("auto", "fp8", "fp8_e4m3"), "expected auto, or fp8 (e4m3)")
_SAME = "LMI-Dist gives the same tokens without it"

OPTIONS = (
    Option(
        "option.gpu_memory_utilization",
        Real(0.0, 1.0),
        "Share of the accelerator's memory that the engine may take.",
        used=("vllm", "lmi-dist"),
        advisory={
            "trtllm": "TensorRT-LLM takes option.kv_cache_free_gpu_mem_fraction",
        },
        since="0.26",
    ),
    Option(
        "option.block_size",
        Whole(1, 1024),
        "Tokens in one block of the KV cache.",
        used=("lmi-dist", "vllm"),
    ),
    Option(
        "option.kv_cache_memory",
        Size(),
        "Memory for the KV cache. Unset: a share of what is free.",
        aliases=("option.kv_cache_memory_bytes",),
        used=("lmi-dist", "vllm"),
        ours=True,
    ),
    Option(
        "option.kv_cache_dtype",
        Text("a number type, or auto"),
        "Number type of the KV cache. auto: that of the model.",
        default="auto",
        used=("vllm", "trtllm", "lmi-dist", "deepspeed"),
        limits={name: _CACHE_TYPES for name in ("lmi-dist", "deepspeed")},
    ),
    Option(
        "option.threads",
        Whole(1, 4096),
        "Processor threads that a model on the CPU computes with. Unset: the cores at hand.",
        used=("lmi-dist", "vllm"),
        ours=True,
    ),
    Option(
        "option.runtime",
        Choice(("auto", "native", "transformers", "generate")),
        "What computes the model. native: LMI-Dist's own decoder; transformers: that library's "
        "layers over a paged KV cache; generate: padded batches, for models that run in no other "
        "way. auto: the first that can.",
        default="auto",
        used=("lmi-dist", "deepspeed"),
        limits={
            "deepspeed": Limit(
                ("auto", "transformers"),
                "DeepSpeed divides models of transformers; expected auto or transformers",
            )
        },
        ours=True,
    ),
    Option(
        "option.speculative_tokens",
        Whole(0),
        "Tokens guessed per step by looking up the last words earlier in the text. 0: none. The "
        "answers stay the same.",
        default="0",
        used=("lmi-dist",),
        ours=True,
    ),
    Option(
        "option.speculative_ngram",
        Whole(1),
        "The longest run of last tokens that a guess looks up.",
        default="4",
        used=("lmi-dist",),
        ours=True,
    ),
    Option(
        "option.collective_timeout",
        Whole(1),
        "Seconds after which a tensor-parallel rank that does not answer counts as hung.",
        default="60",
        used=("lmi-dist",),
        ours=True,
    ),
    Option(
        "option.seed",
        Whole(0),
        "Seed of requests that bring none.",
        used=("vllm",),
        advisory={"lmi-dist": "requests are greedy by default, and sampled ones may bring a seed"},
    ),
    Option(
        "option.enforce_eager",
        Flag(),
        "Don't capture CUDA graphs.",
        default="false",
        used=("vllm", "lmi-dist"),
        since="0.26",
    ),
    Option(
        "option.paged_attention",
        Flag(),
        "Keep the KV cache in blocks.",
        default="true",
        limits={"lmi-dist": Limit((True,), "LMI-Dist's KV cache is always paged; expected true")},
        advisory={
            "lmi-dist": "LMI-Dist's KV cache is always paged",
            "vllm": "vLLM's KV cache is always paged",
        },
        until="0.25",
    ),
    Option(
        "option.enable_chunked_prefill",
        Flag(),
        "Compute long prompts in chunks.",
        used=("vllm", "trtllm"),
        advisory={"lmi-dist": f"chunks follow the step's token budget; {_SAME}"},
        since="0.29",
    ),
    Option(
        "option.enable_prefix_caching",
        Flag(),
        "Keep the KV cache of shared prompt beginnings.",
        used=("vllm", "lmi-dist"),
        since="0.29",
    ),
    Option(
        "option.disable_sliding_window",
        Flag(),
        "Cap the length at the model's window instead of sliding it.",
        default="false",
        used=("vllm",),
        off=(False,),
    ),
    Option(
        "option.cpu_offload_gb_per_gpu",
        Real(0.0),
        "GiB of weights kept in the host's memory, per accelerator.",
        default="0",
        aliases=("option.cpu_offload_gb",),
        used=("vllm",),
        off=(0.0,),
        since="0.29",
    ),
    Option(
        "option.swap_space",
        Real(0.0),
        "GiB of host memory for preempted KV blocks, per accelerator.",
        advisory={
            "lmi-dist": "LMI-Dist computes a preempted request again instead",
            "vllm": "vLLM computes a preempted request again instead",
        },
    ),
    Option(
        "option.max_logprobs",
        Whole(-1),
        "Most log probabilities that a request may ask for.",
        default="20",
        used=("vllm",),
        advisory={"lmi-dist": "LMI-Dist gives as many as a request asks for"},
        since="0.29",
    ),
    Option(
        "option.use_v2_block_manager",
        Flag(),
        "An old choice inside vLLM.",
        advisory={
            "lmi-dist": "it is about vLLM's inside",
            "vllm": "there is but one block manager since 0.9",
        },
    ),
    Option(
        "option.disable_log_stats",
        Flag(),
        "Don't log the engine's load.",
        advisory={name: "the load is in /metrics, not in the log" for name in ("lmi-dist", "vllm")},
    ),
    Option(
        "option.tokenizer_mode",
        Choice(("auto", "slow", "hf", "mistral", "custom", "deepseek_v32")),
        "Which tokenizer implementation.",
        default="auto",
        used=("vllm", "trtllm"),
        limits={
            "lmi-dist": Limit(("auto", "hf"), "LMI-Dist uses the fast tokenizer; expected auto")
        },
        advisory={"lmi-dist": "LMI-Dist uses the fast tokenizer"},
    ),
    Option(
        "option.served_model_name",
        Text("a name"),
        "The model's name in requests and answers.",
        default="lmi",
        used=(ANY,),
    ),
    Option(
        "option.device",
        Text("a device type, or auto"),
        "Kind of accelerator.",
        default="auto",
        used=("trtllm",),
        advisory={
            "lmi-dist": "LMI-Dist takes the accelerator that is there",
            "vllm": "vLLM takes the accelerator that is there",
        },
    ),
    Option(
        "option.lmcache_config_file",
        Text("a file"),
        "LMCache's own configuration.",
        used=("vllm",),
        since="0.35",
    ),
    Option(
        "option.lmcache_auto_config",
        Flag(),
        "Configure LMCache from the memory at hand.",
        default="false",
        refused={
            ANY: "LMCache is not sized here; set option.lmcache_config_file, and "
            'option.kv_transfer_config={"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}'
        },
        off=(False,),
        since="0.35",
    ),
)
