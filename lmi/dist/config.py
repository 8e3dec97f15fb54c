"""What LMI-Dist is told when it loads a model. No torch here: a front may build one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal, get_args

from lmi.core import ConfigError

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]
Runtime = Literal["auto", "native", "transformers", "generate"]
KernelChoice = Literal["auto", "plain", "cpu", "triton"]
Quantize = Literal["none", "int8", "fp8", "bitsandbytes8", "bitsandbytes4", "torchao_int8"]
CacheDtype = Literal["auto", "fp8"]

_POSITIVE: Final = (
    "max_model_len",
    "max_batch",
    "prefill_tokens",
    "block_size",
    "kv_blocks",
    "kv_cache_bytes",
    "threads",
    "tensor_parallel",
)
_CHOICES: Final = {
    "dtype": Dtype,
    "device": Device,
    "runtime": Runtime,
    "kernels": KernelChoice,
    "quantize": Quantize,
    "kv_cache_dtype": CacheDtype,
}


@dataclass(frozen=True, slots=True)
class DistConfig:
    """How to load and run one model. Wrong values raise ConfigError, naming the field.

    model: a folder with config.json and safetensors. dtype: auto is the checkpoint's on CUDA, and
    on a CPU where our own C++ library computes (in float32, from whatever the weights are);
    elsewhere bfloat16 if the processor multiplies it natively, else float32. max_model_len: prompt
    and answer together, in tokens; None is as much as the model and the KV cache hold. max_batch:
    choices that run at once. prefill_tokens: prompt tokens computed in one step; a longer prompt is
    computed in chunks between the others' decode steps. block_size: tokens in a KV block.
    kv_blocks, kv_cache_bytes: the KV cache's size (at most one of them); with neither, what
    max_batch full contexts need, but no more than a share of the free memory. threads: that compute
    on a CPU, of each rank; None is the cores at hand. trust_remote_code: run Python code from the
    model's folder.
    runtime: native is our own decoder, for the families it knows; transformers is that library's
    model over our paged attention; generate is that library's `generate` on padded batches, for
    models that can be run in no other way; auto takes the first of them that can. kernels: what the
    native decoder computes with; auto is triton on CUDA, cpu (our C++ library) where it is built,
    else plain torch. tensor_parallel: ranks, one device or one share of the cores each.
    custom_all_reduce: let the ranks use our own collectives where these can. collective_timeout:
    seconds after which a rank that does not answer counts as hung. prefix_cache: keep the KV blocks
    of finished prompts for prompts that begin alike. speculative_tokens: tokens guessed per step by
    looking up the last words earlier in the text (0 is off); answers stay the same.
    speculative_ngram: the longest run of last tokens that is looked up. device_memory_share: of a
    GPU's free memory, for weights and KV cache together. cuda_graphs: capture decode steps.
    quantize: makes the linear layers of a plain checkpoint low-bit, one by one as they are read,
    but not the output layer: int8 and fp8 (e4m3) with a scale per output; bitsandbytes8,
    bitsandbytes4 (NF4) and torchao_int8 by these libraries, in the runtime transformers. A
    checkpoint that is quantised already takes none. kv_cache_dtype: fp8 keeps K and V as e4m3, in
    half the memory of 16 bits; auto keeps them in the model's dtype.
    """

    model: Path
    dtype: Dtype = "auto"
    device: Device = "auto"
    max_model_len: int | None = None
    max_batch: int = 32
    prefill_tokens: int = 512
    block_size: int = 16
    kv_blocks: int | None = None
    kv_cache_bytes: int | None = None
    threads: int | None = None
    trust_remote_code: bool = False
    runtime: Runtime = "auto"
    kernels: KernelChoice = "auto"
    tensor_parallel: int = 1
    custom_all_reduce: bool = True
    collective_timeout: float = 60.0
    prefix_cache: bool = False
    speculative_tokens: int = 0
    speculative_ngram: int = 4
    device_memory_share: float = 0.9
    cuda_graphs: bool = True
    quantize: Quantize = "none"
    kv_cache_dtype: CacheDtype = "auto"

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise self.error(name, "expected a whole number from 1")
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise self.error(name, f"expected one of {', '.join(get_args(kind))}")
        if self.speculative_tokens < 0:
            raise self.error("speculative_tokens", "expected a whole number from 0")
        if not self.speculative_ngram >= 1:
            raise self.error("speculative_ngram", "expected a whole number from 1")
        if not 0 < self.device_memory_share <= 1:
            raise self.error("device_memory_share", "expected a number above 0, at most 1")
        if not self.collective_timeout > 0:
            raise self.error("collective_timeout", "expected seconds above 0")
        if self.kv_blocks is not None and self.kv_cache_bytes is not None:
            raise self.error("kv_blocks", "set either kv_blocks or kv_cache_bytes, not both")

    @property
    def name(self) -> str:
        """The library's, as it is called in errors."""
        return "LMI-Dist"

    @property
    def tokenizer(self) -> Path:
        """The folder that the front half reads it from."""
        return self.model

    def error(self, name: str, want: str) -> ConfigError:
        """The error that says what is wrong with the field `name`."""
        assert name in {field.name for field in fields(self)}
        return ConfigError(name, str(getattr(self, name)), "LMI-Dist's configuration", want)
