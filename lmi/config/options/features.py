"""Options of what an engine can do beside plain text: adapters, drafts, tools, images."""

from __future__ import annotations

from lmi.config.kinds import Choice, Flag, Text, Whole
from lmi.config.options.base import ANY, Option

GROUP = "Generation: adapters, speculation, tools, images"

_NO_LORA = "LMI-Dist has no LoRA adapters yet; vLLM has, or merge the adapter into the model"
_NO_SPECULATION = "LMI-Dist speculates without a draft model; see option.speculative_tokens"
_NO_TOOLS = "calls are not read out of answers yet; a request with tools is told so"
_LORA_SIZE = "it matters to option.enable_lora only, which is off"

OPTIONS = (
    Option(
        "option.enable_lora",
        Flag(),
        "Serve LoRA adapters.",
        default="false",
        used=("vllm",),
        refused={"lmi-dist": _NO_LORA},
        off=(False,),
        since="0.27",
    ),
    *(
        Option(
            f"option.{name}",
            kind,
            doc,
            default=default,
            used=("vllm",),
            advisory={"lmi-dist": _LORA_SIZE},
            since="0.27",
        )
        for name, kind, default, doc in (
            ("max_loras", Whole(1), "4", "Adapters in one batch."),
            ("max_lora_rank", Whole(1), "16", "Largest rank of an adapter."),
            ("max_cpu_loras", Whole(1), None, "Adapters kept in the host's memory."),
            ("lora_dtype", Text("a number type, or auto"), "auto", "Number type of adapters."),
            ("fully_sharded_loras", Flag(), "false", "Shard both matrices of an adapter."),
        )
    ),
    Option(
        "option.lora_extra_vocab_size",
        Whole(0),
        "Tokens that an adapter may add.",
        default="256",
        advisory={"lmi-dist": _LORA_SIZE, "vllm": "adapters add no tokens since vLLM 0.12"},
        since="0.27",
    ),
    Option(
        "option.long_lora_scaling_factors",
        Text("numbers separated by commas"),
        "Scaling factors of adapters for long contexts.",
        advisory={
            "lmi-dist": _LORA_SIZE,
            "vllm": "vLLM 0.10 and later serve adapters for the model's own context only",
        },
        since="0.27",
    ),
    Option(
        "option.adapters",
        Text("a folder"),
        "Folder of adapters beside the model.",
        default="adapters",
        used=("vllm", "python"),
        refused={"lmi-dist": _NO_LORA},
        since="0.23",
    ),
    Option(
        "option.speculative_draft_model",
        Text("a hub id, s3:// or a folder"),
        "The draft model of speculative decoding.",
        aliases=("option.draft_model_id",),
        used=("vllm",),
        refused={"lmi-dist": _NO_SPECULATION},
        since="0.27",
    ),
    Option(
        "option.speculative_length",
        Whole(0),
        "Tokens that the draft model proposes.",
        default="5",
        aliases=("option.spec_length",),
        used=("vllm",),
        refused={"lmi-dist": _NO_SPECULATION},
        off=(0,),
        since="0.27",
    ),
    Option(
        "option.draft_model_tp_size",
        Whole(1),
        "Accelerators that share the draft model.",
        default="1",
        used=("vllm",),
        refused={"lmi-dist": _NO_SPECULATION},
        off=(1,),
        since="0.27",
    ),
    Option(
        "option.record_acceptance_rate",
        Flag(),
        "Log how many proposed tokens were accepted.",
        default="false",
        advisory={"vllm": "no rate is kept; the answers are the same"},
        refused={"lmi-dist": _NO_SPECULATION},
        off=(False,),
        since="0.27",
    ),
    Option(
        "option.enable_auto_tool_choice",
        Flag(),
        "Let the model call tools.",
        default="false",
        advisory={"vllm": _NO_TOOLS},
        refused={"lmi-dist": "LMI-Dist parses no tool calls yet; vLLM does"},
        off=(False,),
        since="0.33",
    ),
    Option(
        "option.tool_call_parser",
        Text("a parser's name, or a file"),
        "How tool calls are read from the answer.",
        advisory={"vllm": _NO_TOOLS},
        since="0.33",
    ),
    Option(
        "option.enable_reasoning",
        Flag(),
        "Separate the reasoning from the answer.",
        default="false",
        advisory={"vllm": "the reasoning stays in the answer's text"},
        off=(False,),
        since="0.33",
    ),
    Option(
        "option.reasoning_parser",
        Text("a parser's name"),
        "How the reasoning is read from the answer. Here: where it ends and a grammar begins.",
        used=("vllm",),
        since="0.33",
    ),
    Option(
        "option.chat_template",
        Text("a file, or the template itself"),
        "Chat template in place of the tokenizer's.",
        used=(ANY,),
        since="0.33",
    ),
    Option(
        "option.chat_template_content_format",
        Choice(("auto", "string", "openai")),
        "What a message's content looks like to the template.",
        default="auto",
        used=(ANY,),
        since="0.33",
    ),
    Option(
        "option.normalize",
        Flag(),
        "Give embeddings of length 1.",
        default="true",
        used=("python",),
        advisory={"vllm": "vLLM generates text here and gives no embeddings"},
        since="0.36",
    ),
    Option(
        "option.image_placeholder_token",
        Text("a token"),
        "What stands for an image in a prompt.",
        advisory={"vllm": "vLLM knows each model's own placeholder"},
        until="0.32",
    ),
    Option(
        "option.limit_mm_per_prompt",
        Text('a JSON object such as {"image": 2}, or image=2'),
        "Images and the like in one prompt.",
        used=("vllm",),
    ),
)
