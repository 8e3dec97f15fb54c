"""What LMI-Dist's planner costs per step while many requests wait: no model, no torch."""

from __future__ import annotations

import random
import time
from typing import Final

from lmi.dist.messages import CoreRequest
from lmi.dist.plan import Plan
from lmi.dist.scheduler import Scheduler
from lmi.dist.sequence import Sequence

BLOCK_SIZE: Final = 16
MAX_BATCH: Final = 32
MODEL_LEN: Final = 1024
PREFILL_TOKENS: Final = 512
FILLING_STEPS: Final = 64  # until all places are taken, about two per step


def planner_seconds(waiting: int, steps: int, seed: int = 0) -> list[float]:
    """Of each step: the plan, and the bookkeeping of what the step would have computed.

    The queue is kept at `waiting` requests of mixed lengths; the places are all taken.
    """
    rng = random.Random(seed)
    scheduler = Scheduler(
        blocks=MAX_BATCH * MODEL_LEN // BLOCK_SIZE + 1,
        block_size=BLOCK_SIZE,
        max_batch=MAX_BATCH,
        prefill_tokens=PREFILL_TOKENS,
    )
    number = 0
    found = []
    for _ in range(steps + FILLING_STEPS):
        while scheduler.waiting < waiting:
            scheduler.add(_sequence(number, rng))
            number += 1
        began = time.perf_counter()
        _account(scheduler, scheduler.schedule())
        found.append(time.perf_counter() - began)
    return found[FILLING_STEPS:]


def _account(scheduler: Scheduler, plan: Plan) -> None:
    for segment in plan.prefill:
        scheduler.computed(segment.sequence, segment.stop)
    for sequence in plan.decode:
        scheduler.computed(sequence, sequence.done + 1)
    for sequence in [one.sequence for one in plan.prefill if one.last] + plan.decode:
        sequence.tokens.append(1)
        if len(sequence.tokens) >= sequence.stop_at:
            scheduler.remove(sequence)


def _sequence(number: int, rng: random.Random) -> Sequence:
    request = CoreRequest(
        number,
        tuple([1] * rng.randint(32, 512)),
        max_new_tokens=rng.randint(16, 256),
        ignore_eos=True,
    )
    return Sequence.of(request, 0, eos_ids=frozenset(), max_model_len=MODEL_LEN)
