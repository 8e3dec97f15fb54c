"""What LMI-Dist is told when it loads a model. No torch here: a front may build one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal, get_args

from lmi.core import ConfigError

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]

_POSITIVE: Final = (
    "max_model_len",
    "max_batch",
    "prefill_tokens",
    "block_size",
    "kv_blocks",
    "kv_cache_bytes",
    "threads",
)


@dataclass(frozen=True, slots=True)
class DistConfig:
    """How to load and run one model. Wrong values raise ConfigError, naming the field.

    model: a folder with config.json and safetensors. dtype: auto is the checkpoint's on CUDA; on a
    CPU bfloat16 where the processor multiplies it natively, else float32. max_model_len: prompt and
    answer together, in tokens; None is as much as the model and the KV cache hold. max_batch:
    choices that run at once. prefill_tokens: prompt tokens computed in one step; a longer prompt is
    computed in chunks between the others' decode steps. block_size: tokens in a KV block.
    kv_blocks, kv_cache_bytes: the KV cache's size (at most one of them); with neither, what
    max_batch full contexts need, but no more than a share of the free memory. threads: of torch,
    None leaves its own choice. trust_remote_code: run Python code from the model's folder.
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

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise self.error(name, "expected a whole number from 1")
        if self.dtype not in get_args(Dtype):
            raise self.error("dtype", f"expected one of {', '.join(get_args(Dtype))}")
        if self.device not in get_args(Device):
            raise self.error("device", f"expected one of {', '.join(get_args(Device))}")
        if self.kv_blocks is not None and self.kv_cache_bytes is not None:
            raise self.error("kv_blocks", "set either kv_blocks or kv_cache_bytes, not both")

    def error(self, name: str, want: str) -> ConfigError:
        """The error that says what is wrong with the field `name`."""
        assert name in {field.name for field in fields(self)}
        return ConfigError(name, str(getattr(self, name)), "LMI-Dist's configuration", want)
