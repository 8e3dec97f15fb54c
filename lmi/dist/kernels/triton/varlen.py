"""Torch's own paged attention for prefills, where the installed one can and measures faster.

`torch.nn.attention.varlen.varlen_attn` reads a block table only over FlashAttention 3 (Hopper) or 4
(Blackwell), which are packages of their own. Without them, and on every other GPU, our kernel is
what runs.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
from collections.abc import Callable
from typing import Final

import torch
from torch.nn.attention import activate_flash_attention_impl, varlen

from lmi.dist.kernels.base import Heads
from lmi.dist.kernels.triton.prefill import prefill_attention
from lmi.dist.kv import LayerCache, LayerShape

log = logging.getLogger(__name__)

Prefill = Callable[..., None]  # as `prefill_attention`

# By the major number of the compute capability: torch's name, and the package that it loads.
_BACKENDS: Final = {9: ("FA3", "flash_attn_interface"), 10: ("FA4", "flash_attn")}

# What the two are compared on: half-full chunks of a model of usual shape.
_PROBE_HEADS: Final = Heads(32, 8, 128, 128, 128**-0.5)
_PROBE_SEQUENCES: Final = 4
_PROBE_ROWS: Final = 256
_PROBE_TOKENS: Final = 1024
_PROBE_BLOCK: Final = 16
_PROBE_REPEATS: Final = 10
_PROBE_TOLERANCE: Final = 3e-2  # of values near 1, in bfloat16


def choose_prefill(device: torch.device, dtype: torch.dtype) -> Prefill:
    """The faster of torch's and ours, measured on the device when a model is loaded (some
    milliseconds, and only where torch's could run at all)."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return prefill_attention
    backend = _BACKENDS.get(torch.cuda.get_device_capability(device)[0])
    known = "block_table" in inspect.signature(varlen.varlen_attn).parameters
    if backend is None or not known or importlib.util.find_spec(backend[1]) is None:
        return prefill_attention
    try:
        activate_flash_attention_impl(backend[0])
        theirs, their_time = _probe(varlen_prefill, device, dtype)
    except (ImportError, RuntimeError, ValueError) as error:
        log.info("prefills use our own attention: torch's with %s fails: %s", backend[0], error)
        return prefill_attention
    ours, our_time = _probe(prefill_attention, device, dtype)
    difference = (theirs.float() - ours.float()).abs().max().item()
    faster = their_time < our_time and difference <= _PROBE_TOLERANCE
    log.info(
        "prefills use %s attention: torch's with %s takes %.3f ms, ours %.3f ms, difference %.1e",
        "torch's" if faster else "our own", backend[0], their_time, our_time, difference,
    )  # fmt: skip
    return varlen_prefill if faster else prefill_attention


def varlen_prefill(
    query: torch.Tensor,
    out: torch.Tensor,
    cache: LayerCache,
    spans: torch.Tensor,
    tables: torch.Tensor,
    heads: Heads,
    *,
    longest: int,
    max_tokens: int,
) -> None:
    """As `prefill_attention`. All of out is written: rows of other sequences hold nothing yet."""
    ends = spans[-1:, 0] + spans[-1:, 1]
    window = -1 if heads.window is None else heads.window - 1
    found = varlen.varlen_attn(
        query.view(-1, heads.query, heads.size),
        cache.keys,
        cache.values,
        torch.cat([spans[:, 0], ends]),
        None,
        longest,
        max_tokens,
        scale=heads.scaling,
        window_size=(window, 0),
        enable_gqa=True,
        seqused_k=spans[:, 2].contiguous(),
        block_table=tables.contiguous(),
        # One split: a row's sum is taken in one order, whatever stands beside it.
        num_splits=1,
    )
    out.copy_(found.reshape(out.shape))


def _probe(attend: Prefill, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, float]:
    """The output and the milliseconds of one call."""
    heads, rows = _PROBE_HEADS, _PROBE_SEQUENCES * _PROBE_ROWS
    width = _PROBE_TOKENS // _PROBE_BLOCK
    random = torch.Generator(device).manual_seed(0)
    shape = LayerShape(heads.kv, heads.size, heads.size)
    cache = LayerCache(shape, _PROBE_SEQUENCES * width + 1, _PROBE_BLOCK, dtype, device)
    cache.keys.normal_(generator=random)
    cache.values.normal_(generator=random)
    query = torch.empty((rows, heads.query * heads.size), dtype=dtype, device=device)
    query.normal_(generator=random)
    out = torch.empty_like(query)
    first = torch.arange(0, rows, _PROBE_ROWS, dtype=torch.int32, device=device)
    spans = torch.stack(
        [first, torch.full_like(first, _PROBE_ROWS), torch.full_like(first, _PROBE_TOKENS)], dim=1
    )
    blocks = torch.arange(1, _PROBE_SEQUENCES * width + 1, dtype=torch.int32, device=device)
    tables = blocks.view(_PROBE_SEQUENCES, width)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for repeat in range(1 + _PROBE_REPEATS):
        if repeat == 1:  # the first compiles
            begin.record()
        attend(
            query, out, cache, spans, tables, heads, longest=_PROBE_ROWS, max_tokens=_PROBE_TOKENS
        )
    end.record()
    end.synchronize()
    return out, begin.elapsed_time(end) / _PROBE_REPEATS
