"""LMI-Dist: a library that serves text from language models, with continuous batching.

    from pathlib import Path
    from lmi.core import Sampling
    from lmi.dist import DistConfig, Engine

    with Engine.load(DistConfig(Path("a/model/folder"))) as engine:
        for answer in engine.generate(["Once upon a time"], Sampling(max_new_tokens=40)):
            print(answer.text)

It knows tokens and text, no HTTP and no options of a server; it stands on `lmi.core` and `lmi.text`
only. Importing it is cheap: torch comes with the first engine that is loaded in this process, and
transformers only for a model that is not one of our own decoder's.

`Engine` computes in the caller's process, a step in each poll; `ProcessEngine` in processes of its
own, one per rank, for servers; `EngineCore` is what both run: token ids in, token ids out. What a
request may ask for is `lmi.core.Sampling`, how a model is loaded is `DistConfig`.

Whose ideas it is built of: iteration-level scheduling (Orca: Yu et al., OSDI 2022), paged KV blocks
with sharing and recompute (PagedAttention: Kwon et al., SOSP 2023), chunked prefill beside decodes
(Sarathi-Serve: Agrawal et al., OSDI 2024), attention by tiles with an online softmax
(FlashAttention: Dao et al., NeurIPS 2022) and split over the keys for long contexts (FlashDecoding:
Dao et al., 2023), draft tokens verified in one pass (Leviathan et al., ICML 2023).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmi.dist.config import DistConfig
    from lmi.dist.core import EngineCore
    from lmi.dist.engine import Engine
    from lmi.dist.offline import Answer, Choice
    from lmi.dist.process import ProcessEngine

__all__ = ["Answer", "Choice", "DistConfig", "Engine", "EngineCore", "ProcessEngine"]

_HOMES = {
    "Answer": "lmi.dist.offline",
    "Choice": "lmi.dist.offline",
    "DistConfig": "lmi.dist.config",
    "Engine": "lmi.dist.engine",
    "EngineCore": "lmi.dist.core",
    "ProcessEngine": "lmi.dist.process",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
