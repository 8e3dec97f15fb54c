"""The real configurations that are refused, with the reason; every other one resolves unedited."""

from __future__ import annotations

_NEURON = "Neuron accelerators are not supported"
_JAVA = "runs in the DJL model server in Java only"
_LATER = "LMI-Dist "  # what it has not learnt yet; vLLM is named where it can

REFUSED: dict[str, str] = {
    **dict.fromkeys(
        (
            "neuronx ahead of time",
            "neuronx compiled ahead of time",
            "neuronx quick start",
            "neuronx quick start by environment",
            "neuronx's advanced options",
            "neuronx with dynamic batching",
            "neuronx split model",
            "neuronx ahead of time, static int8",
            "neuronx stable diffusion",
            "neuronx rolling batch",
            "neuronx with vllm's loop",
            "neuronx speculative, compiled",
            "neuronx without rolling batch",
            "neuronx int8, option.batch_size with a rolling batch",
            "neuronx speculative by environment, OPTION_ROLLING_BATCH_SIZE",
        ),
        _NEURON,
    ),
    **dict.fromkeys(
        (
            "embeddings with the engine in a variable",
            "embeddings with a translator",
            "a Java model of question answering",
            "a Java model of images",
            "embeddings by the Rust engine",
            "reranking by the Rust engine",
            "embeddings by ONNX Runtime",
            "a Java block",
            "an engine that 0.25 no longer has",
        ),
        _JAVA,
    ),
    **dict.fromkeys(
        (
            "lmi-dist's advanced options",
            "lmi-dist LoRA options",
            "lmi-dist LoRA over awq",
            "lmi-dist more adapters than fit",
            "lmi-dist speculative decoding",
            "lmi-dist images",
            "lmi-dist pipeline parallel with a draft model",
        ),
        _LATER,
    ),
    "lmi-dist marlin": "the layout is that of one GPU kernel",
    "deepspeed's advanced options": "DeepSpeed's sharded checkpoints are pickles",
    "LMCache configured by itself": "LMCache is not sized here",
    "embeddings by vllm": "vLLM generates text only here",
    "embeddings from the DJL model zoo": "the DJL model zoo is not served from",
    "scheduler tutorial, with a comment inside a value": "a # inside a line starts no comment",
    "scheduler rolling batch, load_on_device misspelt": "did you mean load_on_devices?",
}
"""A name in the collection, and what the error says."""
