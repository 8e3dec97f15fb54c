"""What two ranks do in the tests of DeepSpeed: models of several families, one after the other.

Importing transformers and deepspeed takes longer than all of the rest, so one pair of processes
answers for every model.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lmi.core import LmiError
from lmi.dist.collectives.base import Collective
from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore
from lmi.dist.messages import CoreRequest
from lmi.dist.place import Place
from lmi.engines.deepspeed.core import settle
from lmi.engines.deepspeed.settings import Settings, Sums

Say = Callable[[Any], None]
Prompts = Sequence[Sequence[int]]


def config_of(folder: Path, **options: Any) -> DistConfig:
    """Small chunks and few blocks: prompts are cut, and choices preempted."""
    return DistConfig(
        folder,
        **{
            "dtype": "float32",
            "device": "cpu",
            "runtime": "transformers",
            "max_model_len": 192,
            "max_batch": 4,
            "prefill_tokens": 40,
            "block_size": 4,
            "kv_blocks": 110,
            "threads": 1,
            **options,
        },
    )


def answers(core: EngineCore, prompts: Prompts, new_tokens: int) -> list[list[int]]:
    """The greedy answers, all computed beside each other."""
    found: list[list[int]] = [[] for _ in prompts]
    for number, prompt in enumerate(prompts):
        core.add(CoreRequest(id=number, prompt=tuple(prompt), max_new_tokens=new_tokens))
    while core.has_work:
        for event in core.step():
            assert event.token is not None, event
            found[event.request_id].append(event.token)
    return found


def answer_all(
    collective: Collective,
    say: Say,
    models: Sequence[tuple[str, dict[str, Any]]],
    prompts: Prompts,
    new_tokens: int,
    sums: Sums = "lmi-dist",
) -> tuple[str, list[Any]]:
    """For each folder with its options: the answers, the bytes of this rank's layers and the
    details; or the error's text. First, what carried the sums."""
    place = Place(collective.rank, collective.size, f"file://{tempfile.gettempdir()}/unused")
    device = torch.device("cpu")
    settle(place, device, os.environ)
    from lmi.engines.deepspeed.rank import loader
    from lmi.engines.deepspeed.rebuild import DeepSpeed
    from lmi.engines.deepspeed.sums import join

    carried = join(collective, place, device, sums, 30.0)
    found: list[Any] = []
    for folder, options in models:
        config = config_of(Path(folder), tensor_parallel=collective.size, **options)
        library = DeepSpeed(config, Settings(), device, collective, carried)
        load = loader(library)
        try:
            core = EngineCore(config, collective=collective, load=load)
        except LmiError as error:
            found.append(f"{type(error).__name__}: {error}")
            continue
        found.append((answers(core, prompts, new_tokens), core.info.details))
        core.close()
    return carried, found
