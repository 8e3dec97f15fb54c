"""Options that say which model to serve and which engine runs it."""

from __future__ import annotations

from lmi.config.kinds import Choice, Flag, Json, Text, Tokens, Whole
from lmi.config.options.base import ANY, Limit, Option

GROUP = "The model and its engine"

_ENGINE_WORDS = ("Python", "MPI", "DeepSpeed", "lmi-dist", "vLLM", "TensorRT-LLM", "echo")
_ENGINE_SYNONYMS = (
    ("lmi_dist", "lmi-dist"),
    ("lmidist", "lmi-dist"),
    ("trtllm", "TensorRT-LLM"),
    ("tensorrt_llm", "TensorRT-LLM"),
    ("tensorrtllm", "TensorRT-LLM"),
)
# Engines of the DJL server that run in Java or elsewhere; naming them gets a reason instead of a
# spelling hint.
FOREIGN_ENGINES = (
    "PyTorch",
    "OnnxRuntime",
    "Rust",
    "XGBoost",
    "TensorFlow",
    "TritonServer",
    "MXNet",
    "FasterTransformer",
    "Llama",
)
ROLLING_BATCH = ("auto", "disable", "lmi-dist", "vllm", "trtllm", "deepspeed", "scheduler")
_ROLLING_BATCH_SYNONYMS = (
    ("lmidist", "lmi-dist"),
    ("lmi_dist", "lmi-dist"),
    ("true", "auto"),
    ("false", "disable"),
)

_EXACT_TYPES = ("auto", "fp32", "fp16", "bf16", "int8", "fp8")
_TYPE_SYNONYMS = (
    ("float32", "fp32"),
    ("float", "fp32"),
    ("f32", "fp32"),
    ("float16", "fp16"),
    ("half", "fp16"),
    ("f16", "fp16"),
    ("bfloat16", "bf16"),
    ("f8", "fp8"),
)

OPTIONS = (
    Option(
        "engine",
        Choice(_ENGINE_WORDS, (*_ENGINE_SYNONYMS, *((name, name) for name in FOREIGN_ENGINES))),
        "The engine. Python, MPI and DeepSpeed mean what they mean in LMI, together with "
        "option.rolling_batch; the other names choose an engine directly.",
        used=(ANY,),
    ),
    Option(
        "option.rolling_batch",
        Choice((*ROLLING_BATCH, "tnx"), _ROLLING_BATCH_SYNONYMS),
        "Which library batches continuously. auto: chosen from the model and what is "
        "installed; disable: none; scheduler: the LMI-Dist engine took its place.",
        used=(ANY,),
    ),
    Option(
        "option.mpi_mode",
        Flag(),
        "Start the ranks with mpirun. Unset: LMI-Dist starts them itself.",
        default="false",
        used=(ANY,),
        advisory={"vllm": "vLLM starts its own ranks"},
        since="0.28",
    ),
    Option(
        "option.async_mode",
        Flag(),
        "Ask for the asynchronous handler of 0.36 instead of a rolling batch.",
        used=("vllm", "trtllm", "python"),
        advisory={ANY: "every engine here batches continuously and answers asynchronously"},
        since="0.33",
    ),
    Option(
        "option.model_id",
        Text("a hub id, s3://bucket/prefix, or a folder"),
        "The model. Unset: the folder itself.",
        aliases=("option.s3url",),
        used=(ANY,),
    ),
    Option(
        "option.model_dir",
        Text("a folder"),
        "The model's folder where option.model_id is unset.",
        used=(ANY,),
    ),
    Option(
        "option.revision",
        Text("a branch, tag or commit"),
        "The revision of a hub model.",
        used=(ANY,),
    ),
    Option(
        "option.task",
        Choice(
            (
                "auto",
                "text-generation",
                "text2text-generation",
                "conversational",
                "text-embedding",
                "feature-extraction",
                "text-classification",
                "classify",
                "token-classification",
                "question-answering",
                "table-question-answering",
                "fill-mask",
                "multiple-choice",
                "translation",
                "summarization",
                "zero-shot-classification",
                "sentence-similarity",
                "text-reranking",
                "reward",
                "score",
                "transcription",
                "generate",
                "embed",
                "embedding",
                "pooling",
                "text-to-image",
                "automatic-speech-recognition",
                "image-classification",
            ),
            (
                ("text_generation", "text-generation"),
                ("text_embedding", "text-embedding"),
                ("feature_extraction", "feature-extraction"),
                ("text_classification", "text-classification"),
                ("token_classification", "token-classification"),
                ("question_answering", "question-answering"),
                ("fill_mask", "fill-mask"),
            ),
        ),
        "What the model is used for. Unset: inferred from its architecture.",
        free=True,
        used=(ANY,),
        limits={
            "lmi-dist": Limit(
                (
                    "auto",
                    "text-generation",
                    "text2text-generation",
                    "conversational",
                    "generate",
                ),
                "LMI-Dist generates text only; expected text-generation",
            ),
            "vllm": Limit(
                ("auto", "text-generation", "conversational", "generate"),
                "vLLM generates text only here; expected text-generation",
            ),
            "deepspeed": Limit(
                ("auto", "text-generation", "conversational", "generate"),
                "only text is generated with continuous batching; for this task leave "
                "option.rolling_batch out and write engine=DeepSpeed",
            ),
        },
    ),
    Option(
        "option.trust_remote_code",
        Flag(),
        "Run the Python code that comes with the model.",
        default="false",
        used=(ANY,),
    ),
    Option(
        "option.dtype",
        Choice(_EXACT_TYPES, _TYPE_SYNONYMS),
        "Number type of the weights and of the computation. int8 means option.quantize=int8 with "
        "LMI-Dist and DeepSpeed.",
        aliases=("option.data_type",),
        used=("vllm", "trtllm", "deepspeed", "python", "lmi-dist"),
        limits={
            "lmi-dist": Limit(
                ("auto", "fp32", "fp16", "bf16", "int8"),
                "LMI-Dist computes in auto, fp32, fp16 or bf16; for the weights see "
                "option.quantize",
            ),
            "deepspeed": Limit(
                ("auto", "fp32", "fp16", "bf16", "int8"),
                "DeepSpeed computes in auto, fp32, fp16 or bf16; for the weights see "
                "option.quantize",
            ),
            "vllm": Limit(
                ("auto", "fp32", "fp16", "bf16"),
                "vLLM takes auto, fp32, fp16 or bf16; see option.quantize",
            ),
        },
    ),
    Option(
        "option.tensor_parallel_degree",
        Whole(1, words=("max",)),
        "Accelerators that share one model. max: all of them.",
        aliases=("option.tensor_parallel_size",),
        used=(ANY,),
    ),
    Option(
        "option.use_custom_all_reduce",
        Flag(),
        "Let the ranks of a tensor-parallel model use the engine's own all-reduce where it can. "
        "Unset: LMI-Dist does, TensorRT-LLM does not.",
        used=("lmi-dist", "trtllm"),
    ),
    Option(
        "option.pipeline_parallel_degree",
        Whole(1),
        "Stages that the layers are spread over.",
        default="1",
        aliases=("option.pipeline_parallel_size",),
        used=("trtllm", "vllm"),
        refused={
            "lmi-dist": "LMI-Dist has no pipeline parallelism; use option.tensor_parallel_degree"
        },
        off=(1,),
        since="0.29",
    ),
    Option(
        "option.cluster_size",
        Whole(1),
        "Machines that share one model.",
        default="1",
        used=("trtllm",),
        refused={
            "vllm": "one worker starts the ranks of one machine; run a replica on each machine"
        },
        off=(1,),
        since="0.29",
    ),
    Option(
        "option.max_rolling_batch_size",
        Whole(1, 1_000_000),
        "Requests that run at once.",
        aliases=("option.max_num_seqs",),
        used=("lmi-dist", "vllm", "trtllm", "deepspeed", "echo"),
        advisory={"python": "tasks and handlers have no rolling batch; see batch_size"},
    ),
    Option(
        "option.max_rolling_batch_prefill_tokens",
        Tokens(),
        "Tokens that one step computes at most; longer prompts are cut into chunks.",
        aliases=("option.max_num_batched_tokens",),
        used=("lmi-dist", "vllm"),
    ),
    Option(
        "option.max_model_len",
        Tokens(),
        "Tokens of prompt and answer together. Unset: what the model allows.",
        used=("lmi-dist", "vllm", "echo"),
        advisory={"trtllm": "TensorRT-LLM takes option.max_seq_len, which is set from it"},
        since="0.26",
    ),
    Option(
        "option.load_format",
        Text("a format such as auto or safetensors"),
        "Format of the weights.",
        default="auto",
        used=("vllm", "trtllm"),
        limits={
            "lmi-dist": Limit(
                ("auto", "safetensors"),
                "LMI-Dist loads safetensors only; expected auto or safetensors",
            )
        },
        advisory={"lmi-dist": "LMI-Dist always loads safetensors"},
        since="0.26",
    ),
    Option(
        "option.quantize",
        Text("a method that the engine knows, such as awq, gptq, fp8 or bitsandbytes8"),
        "Quantise the weights at load, or name the method of a quantised checkpoint. What works "
        "where: [quantization.md](quantization.md).",
        aliases=("option.quantization",),
        used=("lmi-dist", "vllm", "trtllm", "deepspeed", "python"),
        off=("none",),
    ),
    Option(
        "option.calibration_data",
        Text("a file in the model's folder, or an absolute path"),
        "Texts that SmoothQuant is calibrated with: one on each line, or .jsonl with `text` in "
        "each. Unset: a small set of our own.",
        used=("lmi-dist", "deepspeed"),
        advisory={ANY: "it matters to option.quantize=smoothquant only"},
        ours=True,
    ),
    Option(
        "option.device_map",
        Choice(
            ("auto", "balanced", "balanced_low_0", "sequential"),
            alternative=Json("a JSON object", (dict,)),
        ),
        "Where transformers places the layers.",
        used=("python",),
        advisory={
            name: "the engine places the layers itself"
            for name in ("lmi-dist", "vllm", "trtllm", "deepspeed")
        },
    ),
)
