"""A transformers model over our paged attention, as the core sees it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lmi.dist.attention import PagedLayer, Step
from lmi.dist.batch import StepBatch
from lmi.dist.collectives.base import Collective
from lmi.dist.config import DistConfig
from lmi.dist.kv import LayerCache, Workspace, cache_dtype
from lmi.dist.library import Library
from lmi.dist.loader import Loaded, Progress, install_attention, load, read_model_config
from lmi.dist.model import ModelFacts, Reference
from lmi.dist.probe import set_layer
from lmi.dist.sizing import model_length


class HostedModel:
    """A `lmi.dist.model.PagedModel`: transformers computes all but the attention."""

    def __init__(self, loaded: Loaded, facts: ModelFacts) -> None:
        self.facts = facts
        self._loaded = loaded
        self._step = Step()

    def attach(self, caches: Sequence[LayerCache]) -> None:
        """Hand each attention module its paged layer."""
        loaded = self._loaded
        workspace = Workspace(loaded.dtype, loaded.device)
        set_layer(loaded.model.modules(), None)
        for layer, cache in zip(loaded.layers, caches, strict=True):
            set_layer([layer.module], PagedLayer(cache, self._step, workspace))

    def logits(self, batch: StepBatch) -> torch.Tensor:
        """See the protocol."""
        self._step.batch = batch
        try:
            return self._loaded.logits(batch.token_ids, batch.positions, batch.logit_rows)
        finally:
            self._step.batch = None

    def reference(self) -> Reference:
        """The logits of the model's own attention."""
        return Reference(self._loaded.probe_ids, self._loaded.reference)


def load_hosted(
    config: DistConfig,
    progress: Progress,
    collective: Collective | None,
    why: str,
    library: Library | None = None,
) -> HostedModel:
    """Load a model with transformers. why: the reason that it is not our own decoder's.

    library: rebuilds it before its attention is paged. Raises ConfigError or ModelError; may take
    minutes.
    """
    progress("read config", 0, 1)
    model_config = read_model_config(config)
    progress("read config", 1, 1)
    with torch.inference_mode():
        loaded = load(config, model_config, progress, collective, library)
        model_len, note = model_length(loaded.text_config)
        covered = -(-model_len // config.block_size) * config.block_size
        install_attention(loaded, covered)
    windows = sorted({layer.window for layer in loaded.layers if layer.window is not None})
    return HostedModel(
        loaded,
        ModelFacts(
            kind=loaded.model.config.model_type,
            device=loaded.device,
            dtype=loaded.dtype,
            vocab_size=loaded.vocab_size,
            eos_ids=loaded.eos_ids,
            layers=tuple(layer.shape for layer in loaded.layers),
            model_len=model_len,
            length_note=note,
            kernels=None,
            details=(
                ("runtime", f"transformers ({why})"),
                ("threads", str(torch.get_num_threads())),
                (
                    "linear layers",
                    f"{loaded.packed_linears} packed" if loaded.packed_linears else "plain",
                ),
                *((("weights", loaded.low_bit),) if loaded.low_bit else ()),
                ("attention", "paged" + (f", window {windows[0]}" if windows else "")),
                *loaded.details,
            ),
            engine="lmi-dist" if library is None else library.engine,
            cache_dtype=cache_dtype(config, loaded.device),
        ),
    )
