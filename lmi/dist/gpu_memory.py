"""How many bytes of a GPU the KV cache may take: what is left after the heaviest forward pass.

The pass is run for once with as many rows as a step can have, over a small cache, and its peak is
measured; so kernels' workspaces and the fragmentation they cause count as they are.
"""

from __future__ import annotations

from typing import Final

import torch

from lmi.dist.config import DistConfig
from lmi.dist.messages import CoreRequest
from lmi.dist.model import PagedModel
from lmi.dist.runner import Runner
from lmi.dist.scheduler import Scheduler
from lmi.dist.sequence import Sequence

# Rows of logits that the sampler holds at once, as float32: the widened logits, the log softmax,
# and a cumulative distribution in float64.
_SAMPLING_COPIES: Final = 4
_FLOAT32: Final = 4  # bytes


def cache_budget(*, free: int, reserved: int, peak: int, logits: int, share: float) -> int:
    """Bytes for the KV cache.

    free: bytes of the device that nobody has. reserved: bytes that this process has taken from it.
    peak: bytes of the process that were in use at the height of the pass, weights included. logits:
    bytes of a step's logits in float32. share: see `DistConfig.device_memory_share`. The result may
    be below 0: then weights and a step alone take more than the share.
    """
    return int(share * (free + reserved)) - peak - _SAMPLING_COPIES * logits


def measure_budget(model: PagedModel, config: DistConfig) -> int:
    """`cache_budget` after a profiling pass on the model's CUDA device. The pass leaves a small KV
    cache attached, which counts as in use: attach the real one next."""
    device = model.facts.device
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    rows = run_heaviest_step(model, config)
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return cache_budget(
        free=free,
        reserved=torch.cuda.memory_reserved(device),
        peak=torch.cuda.max_memory_allocated(device),
        logits=rows * model.facts.vocab_size * _FLOAT32,
        share=config.device_memory_share,
    )


def heaviest_prompts(config: DistConfig, model_len: int) -> list[int]:
    """Lengths of max_batch prompts that fill a step: prefill_tokens of them, and one token for each
    sequence that may decode beside; fewer where the context is too short."""
    left = config.prefill_tokens
    prompts = []
    for _ in range(config.max_batch):
        more = min(left, model_len - 2)  # beside the prompt's first token and the answer's
        prompts.append(1 + more)
        left -= more
    return prompts


def run_heaviest_step(model: PagedModel, config: DistConfig) -> int:
    """Run `heaviest_prompts` in one step over a cache just large enough; the rows of logits."""
    model_len = model.facts.model_len
    prompts = heaviest_prompts(config, min(model_len, config.max_model_len or model_len))
    max_model_len = max(prompts) + 1
    # One block beyond each prompt: a newcomer must leave as many to those that run.
    blocks = sum(-(-prompt // config.block_size) + 1 for prompt in prompts)
    scheduler = Scheduler(
        blocks=blocks,
        block_size=config.block_size,
        max_batch=config.max_batch,
        prefill_tokens=sum(prompts),
    )
    runner = Runner(
        model,
        blocks=blocks,
        block_size=config.block_size,
        max_batch=config.max_batch,
        max_model_len=max_model_len,
    )
    for number, prompt in enumerate(prompts):
        request = CoreRequest(id=-1 - number, prompt=(0,) * prompt, max_new_tokens=1)
        scheduler.add(Sequence.of(request, 0, eos_ids=frozenset(), max_model_len=max_model_len))
    return runner.run(scheduler.schedule()).shape[0]
