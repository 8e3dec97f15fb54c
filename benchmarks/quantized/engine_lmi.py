"""LMI-Dist and DeepSpeed as subjects that are asked for scores too: the core, in this process."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.offline.engine_lmi import LmiDist
from benchmarks.offline.serve import Ready, Setting, serve
from benchmarks.quantized.fidelity import fidelity
from benchmarks.quantized.memory import held
from lmi.dist.batch import StepBatch
from lmi.dist.collectives.base import Collective
from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore
from lmi.dist.device import choose_device
from lmi.dist.engine import Progress
from lmi.dist.kv import LayerCache
from lmi.dist.messages import CoreRequest
from lmi.dist.model import PagedModel, Reference
from lmi.dist.place import ALONE
from lmi.dist.runtimes import load_model
from lmi.engines.deepspeed.core import settle
from lmi.engines.deepspeed.settings import Settings

BLOCK: Final = 16
Load = Callable[[DistConfig, Progress, Collective | None], PagedModel]


class Overheard:
    """A model whose logits are kept while somebody listens."""

    def __init__(self, model: PagedModel) -> None:
        self._model = model
        self.facts = model.facts
        self.listening = False
        self.rows: list[torch.Tensor] = []

    def attach(self, caches: Sequence[LayerCache]) -> None:
        """See the protocol."""
        self._model.attach(caches)

    def logits(self, batch: StepBatch) -> torch.Tensor:
        """See the protocol."""
        found = self._model.logits(batch)
        if self.listening:
            self.rows.append(found.float().clone())
        return found

    def reference(self) -> Reference | None:
        """See the protocol."""
        return self._model.reference()


def load(setting: Setting) -> Ready:
    options: dict[str, Any] = dict(setting.options)
    windows, reference = Path(options.pop("windows")), Path(options.pop("reference"))
    deepspeed = options.pop("deepspeed", False)
    config = DistConfig(
        Path(setting.model),
        dtype=setting.dtype,  # type: ignore[arg-type]
        device="cpu",
        threads=setting.threads,
        max_batch=setting.max_batch,
        max_model_len=setting.max_tokens,
        kv_blocks=setting.max_batch * -(-setting.max_tokens // BLOCK) + 1,
        **options,
    )
    found: list[Overheard] = []

    def overhear(
        config: DistConfig, progress: Progress, collective: Collective | None
    ) -> PagedModel:
        found.append(Overheard(inner(config, progress, collective)))
        return found[0]

    inner: Load = load_model
    if deepspeed:
        inner = _deepspeed(config)
    elif config.runtime == "transformers":
        import transformers.models.llama.modeling_llama  # noqa: F401 - imports count for no model
    before, began = held(), time.monotonic()
    core = EngineCore(config, load=overhear)
    facts = dict(core.info.details)
    facts["load seconds"] = f"{time.monotonic() - began:.3f}"
    facts["bytes held"] = str(held() - before)
    facts["bytes counted"] = str(counted(found[0].facts.vocab_size))

    def scores(ids: Sequence[int]) -> torch.Tensor:
        model = found[0]
        model.rows.clear()
        model.listening = True
        core.add(CoreRequest(0, tuple(ids), 1, prompt_logprobs=True, ignore_eos=True))
        while core.has_work:
            core.step()
        model.listening = False
        return torch.cat(model.rows)

    facts |= fidelity(scores, windows, reference)
    return Ready(LmiDist(core), facts)


def _deepspeed(config: DistConfig) -> Load:
    """What a rank of the DeepSpeed engine loads its model with, alone."""
    device = choose_device(config)
    settle(ALONE, device, os.environ)  # before deepspeed is imported
    from lmi.engines.deepspeed import rank
    from lmi.engines.deepspeed.rebuild import DeepSpeed

    return rank.loader(DeepSpeed(config, Settings(), device))


def counted(vocabulary: int) -> int:
    """Bytes of the linear layers but the head, as the objects that compute them tell.

    Ours tell `nbytes`; torch's modules, their tensors.
    """
    total = 0
    for thing in gc.get_objects():
        module = isinstance(thing, torch.nn.Module)
        if not module and not _ours(type(thing)):
            continue
        if not (hasattr(thing, "in_features") and hasattr(thing, "out_features")):
            continue
        if thing.out_features == vocabulary:
            continue
        if module:
            total += sum([_bytes(tensor) for tensor in (*thing.parameters(), *thing.buffers())])
        elif hasattr(thing, "nbytes"):
            total += thing.nbytes
    return total


def _ours(kind: type) -> bool:
    name = kind.__dict__.get("__module__")  # a descriptor in some C types
    return isinstance(name, str) and name.startswith("lmi.")


def _bytes(tensor: Any) -> int:
    """What a tensor keeps. One that stands for others tells the bytes of what it stands for."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return int(tensor.nbytes)
    return sum([_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0]])


if __name__ == "__main__":
    serve(load)
