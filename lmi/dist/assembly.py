"""What a core is made of: its configuration and its model decide the sizes and the planner once."""

from __future__ import annotations

from typing import Final

from lmi.core import EngineInfo
from lmi.dist.collectives.base import Collective
from lmi.dist.config import DistConfig
from lmi.dist.device import free_memory
from lmi.dist.float8 import FLOAT8
from lmi.dist.gpu_memory import measure_budget
from lmi.dist.model import ModelFacts, PagedModel
from lmi.dist.parallel.memory import least_free
from lmi.dist.prefix import NoPrefixes, PrefixCache
from lmi.dist.scheduler import Scheduler
from lmi.dist.sizing import HOST_SHARE, Size, size_cache
from lmi.dist.speculate import NgramGuesser, NoGuesser

# Rows that a decode step may have before its arithmetic takes longer than reading the weights: the
# processor's operations per second over its bandwidth, in weights (the ridge of its roofline). Two
# cores of 100 GFLOP/s each at 25 GB/s give 16 rows in float32; an H100 gives about 300 in bfloat16.
FREE_ROWS: Final = {"cpu": 16, "cuda": 256}


def scheduler_of(config: DistConfig, facts: ModelFacts, size: Size) -> Scheduler:
    """The planner, with what the configuration plugs in."""
    guesser = NgramGuesser(
        most=config.speculative_tokens,
        longest=config.speculative_ngram,
        free_rows=FREE_ROWS[facts.device.type],
    )
    return Scheduler(
        blocks=size.blocks,
        block_size=config.block_size,
        max_batch=config.max_batch,
        prefill_tokens=config.prefill_tokens,
        prefixes=PrefixCache(config.block_size) if config.prefix_cache else NoPrefixes(),
        guesser=guesser if config.speculative_tokens else NoGuesser(),
    )


def size_of(config: DistConfig, model: PagedModel, collective: Collective | None) -> Size:
    """How long a context may be and how many KV blocks there are; the same on all ranks."""
    facts = model.facts
    if facts.device.type == "cuda":
        free, share = measure_budget(model, config), 1.0
    else:
        free, share = free_memory(facts.device), HOST_SHARE
    if collective is not None:
        free = least_free(free, facts.device, collective)
    return size_cache(
        config,
        model_len=facts.model_len,
        note=facts.length_note,
        bytes_per_token=facts.bytes_per_token,
        free_bytes=free,
        share=share,
    )


def info_of(config: DistConfig, facts: ModelFacts, size: Size) -> EngineInfo:
    """What was decided, for people and for the front."""
    cache = size.blocks * config.block_size * facts.bytes_per_token
    details = [
        ("device", str(facts.device)),
        ("dtype", str(facts.dtype).removeprefix("torch.")),
        *facts.details,
        ("context", f"{size.max_model_len} tokens" + (f" ({size.note})" if size.note else "")),
        (
            "KV cache",
            f"{size.blocks} blocks of {config.block_size} tokens, {cache / 2**20:.0f} MiB"
            + (", FP8" if facts.kept == FLOAT8 else ""),
        ),
        ("prefill", f"{config.prefill_tokens} tokens per step"),
    ]
    if config.prefix_cache:
        details.append(("prefix cache", "on"))
    if config.speculative_tokens:
        details.append(
            (
                "speculation",
                f"up to {config.speculative_tokens} tokens per step, looked up by the last "
                f"{config.speculative_ngram}",
            )
        )
    return EngineInfo(
        engine=facts.engine,
        model=config.model.name,
        max_model_len=size.max_model_len,
        vocab_size=facts.vocab_size,
        max_batch=config.max_batch,
        details=tuple(details),
    )
