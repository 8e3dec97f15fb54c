"""DeepSpeed as a subject of the contract: a tiny Llama that it divides among two ranks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tokenizers import Tokenizer as Rust

from lmi.dist import DistConfig
from lmi.dist.engine import silent
from lmi.engines.deepspeed.load import start
from lmi.engines.deepspeed.settings import Settings
from tests.contract.dist_subjects import KV_BLOCKS, PREFILL_TOKENS, kill_worker
from tests.contract.subject import Subject


def deepspeed_config(folder: Path) -> DistConfig:
    """Requests are preempted, and prompts computed piece by piece."""
    return DistConfig(
        folder,
        dtype="float32",
        device="cpu",
        runtime="transformers",
        max_model_len=128,
        max_batch=4,
        prefill_tokens=PREFILL_TOKENS,
        kv_blocks=KV_BLOCKS,
        threads=1,
        tensor_parallel=2,
    )


def deepspeed_subject(folder: Path) -> Subject:
    """The engine as a server has it."""
    rust = Rust.from_file(str(folder / "tokenizer.json"))
    return Subject(
        name="deepspeed",
        make=partial(start, deepspeed_config(folder), Settings(), silent),
        encode=lambda text: tuple(rust.encode(text).ids),
        decode=rust.decode,
        kill=kill_worker,
    )
