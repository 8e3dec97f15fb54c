"""Paged attention against a plain one, over every path: chunks, padded decode, one by one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from lmi.dist import batch
from lmi.dist.attention import PagedLayer, Step
from lmi.dist.batch import BatchBuilder
from lmi.dist.kv import LayerCache, LayerShape, Workspace
from lmi.dist.messages import CoreRequest
from lmi.dist.scheduler import Scheduler
from lmi.dist.sequence import Sequence

pytestmark = pytest.mark.slow

HEADS, KV_HEADS, SIZE, VALUE_SIZE, BLOCK = 6, 2, 8, 4, 4
SCALING = 0.3
CPU = torch.device("cpu")
LENGTHS = [1, 3, 9, 30, 50]


def plain(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: dict[str, Any]
) -> torch.Tensor:
    """query (tokens, heads, size) of one whole sequence -> (tokens, heads, value size)."""
    tokens = query.shape[0]
    group = HEADS // KV_HEADS
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = torch.einsum("qhd,khd->hqk", query, key) * SCALING
    if options["softcap"] is not None:
        scores = torch.tanh(scores / options["softcap"]) * options["softcap"]
    if options["key_bias"] is not None:
        scores = scores + options["key_bias"][:, None, :tokens]
    position = torch.arange(tokens)
    hidden = position[None, :] > position[:, None]
    if options["window"] is not None:
        hidden = hidden | (position[:, None] - position[None, :] >= options["window"])
    weights = scores.masked_fill(hidden, -torch.inf).exp()
    total = weights.sum(-1, keepdim=True)
    if options["sinks"] is not None:
        total = total + options["sinks"].exp()[:, None, None]
    return torch.einsum("hqk,khd->qhd", weights / total, value)


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize(
    "changed",
    [{}, {"window": 7}, {"softcap": 0.5}, {"sinks": True}, {"key_bias": True},
     {"window": 5, "softcap": 0.7, "sinks": True}],
    ids=str,
)  # fmt: skip
def test_every_step_gives_what_the_whole_sequence_gives(
    changed: dict[str, Any], one_by_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "GATHER_TOKENS", 0 if one_by_one else 1 << 30)
    monkeypatch.setattr(batch, "LOOP_PADDING", 1e9)
    torch.manual_seed(0)
    options: dict[str, Any] = {"window": None, "softcap": None, "sinks": None, "key_bias": None}
    options |= changed
    if options["sinks"]:
        options["sinks"] = torch.randn(HEADS)
    if options["key_bias"]:
        options["key_bias"] = torch.randn(HEADS, 64)
    full = {
        number: [torch.randn(60, heads, size) for heads, size in
                 ((HEADS, SIZE), (KV_HEADS, SIZE), (KV_HEADS, VALUE_SIZE))]
        for number in range(len(LENGTHS))
    }  # fmt: skip
    wanted = {number: plain(*tensors, options) for number, tensors in full.items()}
    step, workspace = Step(), Workspace(torch.float32, CPU)
    cache = LayerCache(LayerShape(KV_HEADS, SIZE, VALUE_SIZE), 80, BLOCK, torch.float32, CPU)
    layer = PagedLayer(cache, step, workspace)
    builder = BatchBuilder(
        max_batch=8, blocks_per_sequence=20, block_size=BLOCK, dtype=torch.float32, device=CPU
    )
    scheduler = Scheduler(blocks=79, block_size=BLOCK, max_batch=8, prefill_tokens=13)
    for number, length in enumerate(LENGTHS):
        request = CoreRequest(number, (1,) * length, max_new_tokens=60 - length)
        scheduler.add(Sequence.of(request, 0, eos_ids=frozenset(), max_model_len=60))
    for _ in itertools.takewhile(lambda _: scheduler.running + scheduler.waiting, range(500)):
        plan = scheduler.schedule()
        step.batch = builder.build(plan)
        spans = [(s.sequence, s.start, s.stop) for s in plan.prefill]
        spans += [(s, s.done, s.done + 1) for s in plan.decode]
        query, key, value = (
            torch.cat([full[s.request.id][kind][a:b] for s, a, b in spans]).transpose(0, 1)[None]
            for kind in range(3)
        )
        found = layer.attend(torch.nn.Identity(), query, key, value, scaling=SCALING, **options)
        want = torch.cat([wanted[s.request.id][a:b] for s, a, b in spans])
        assert torch.allclose(found[0], want, atol=1e-5)
        for sequence, _, stop in spans:
            sequence.done = stop
            if sequence.pending == 0:
                sequence.tokens.append(1)
            if len(sequence.tokens) >= sequence.stop_at:
                scheduler.remove(sequence)
    assert scheduler.pool.used == 0


def test_a_decode_batch_of_very_unequal_lengths_is_not_padded() -> None:
    builder = BatchBuilder(
        max_batch=8, blocks_per_sequence=100, block_size=BLOCK, dtype=torch.float32, device=CPU
    )
    scheduler = Scheduler(blocks=200, block_size=BLOCK, max_batch=8, prefill_tokens=400)
    for number, length in enumerate([300, 2, 2, 2, 2]):
        request = CoreRequest(number, (1,) * length)
        scheduler.add(Sequence.of(request, 0, eos_ids=frozenset(), max_model_len=400))
    first = scheduler.schedule()
    builder.build(first)
    for segment in first.prefill:
        segment.sequence.done = segment.stop
        segment.sequence.tokens.append(1)
    view = builder.build(scheduler.schedule()).decode_view(None)
    assert isinstance(view, list)
    assert [len(slots) for slots in view] == [301, 3, 3, 3, 3]
    assert len({int(slot) for slots in view for slot in slots}) == 313
    assert np.all(np.array([int(slots.min()) for slots in view]) >= BLOCK), (
        "the trash block is read"
    )
