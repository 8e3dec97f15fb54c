"""LMI-Dist as a subject: its core, ids in and ids out, in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.offline.loop import Ids, Piece
from benchmarks.offline.serve import Ready, Setting, serve
from lmi.dist import DistConfig, EngineCore
from lmi.dist.messages import CoreRequest


class LmiDist:
    """A step is the core's: one forward pass."""

    def __init__(self, core: EngineCore) -> None:
        self._core = core

    def add(self, number: int, prompt: Ids, output: int) -> None:
        self._core.add(CoreRequest(number, tuple(prompt), max_new_tokens=output, ignore_eos=True))

    def step(self) -> Sequence[Piece]:
        pieces = []
        for event in self._core.step():
            if event.token is None:
                raise RuntimeError(f"request {event.request_id} failed: {event.detail}")
            pieces.append(Piece(event.request_id, (event.token,), event.finish is not None))
        return pieces


def load(setting: Setting) -> Ready:
    options: dict[str, Any] = setting.options
    began = time.monotonic()
    core = EngineCore(
        DistConfig(
            Path(setting.model),
            dtype=setting.dtype,  # type: ignore[arg-type]
            device="cpu",
            threads=setting.threads,
            max_batch=setting.max_batch,
            max_model_len=setting.max_tokens,
            kv_blocks=setting.max_batch * -(-setting.max_tokens // 16) + 1,
            **options,
        )
    )
    facts = dict(core.info.details) | {"load seconds": f"{time.monotonic() - began:.2f}"}
    return Ready(LmiDist(core), facts)


if __name__ == "__main__":
    serve(load)
