"""The model is asked, not its config: one short forward pass shows what its attention does.

The probe stands in for the paged layers, computes the same attention over one sequence without a
cache, and notes what each layer keeps per token. What LMI-Dist can't honour is refused here, by
name, before anything is served.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lmi.dist.attention import LAYER_ATTRIBUTE, interface, scores_to_values
from lmi.dist.kv import LayerShape
from lmi.dist.unpageable import Unpageable


@dataclass(frozen=True, slots=True, eq=False)
class LayerFacts:
    """One attention layer: its module, what it keeps per token, its window in tokens."""

    module: torch.nn.Module
    shape: LayerShape
    window: int | None
    heads: int


class Probe:
    """A `lmi.dist.attention.Layer` for all layers of a model at once."""

    def __init__(self) -> None:
        self.layers: list[LayerFacts] = []

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scaling: float,
        window: int | None,
        softcap: float | None,
        sinks: torch.Tensor | None,
        key_bias: torch.Tensor | None,
    ) -> torch.Tensor:
        """Note the layer; attend within the one sequence of the probe."""
        kv_heads, tokens, size = key.shape[1:]
        shape = LayerShape(kv_heads, size, value.shape[-1])
        self.layers.append(LayerFacts(module, shape, window, query.shape[1]))
        group = query.shape[1] // kv_heads
        position = torch.arange(tokens, device=query.device)
        hidden = position[None, :] > position[:, None]
        if window is not None:
            hidden |= position[None, :] <= position[:, None] - window
        mask = query.new_zeros((tokens, tokens)).masked_fill(hidden, -torch.inf)
        if key_bias is not None:
            mask = mask + key_bias[None, :, None, :tokens]
        out = scores_to_values(
            query,
            key.repeat_interleave(group, dim=1),
            value.repeat_interleave(group, dim=1),
            mask,
            scaling=scaling,
            softcap=softcap,
            sinks=None if sinks is None else sinks.view(1, -1, 1, 1),
        )
        return out.transpose(1, 2)


def probing_interface(
    module: torch.nn.Module, *args: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """`interface`, with a look at what a model passes that `interface` does not read."""
    name = type(module).__name__
    if kwargs.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        raise Unpageable(f"{name} attends to later tokens too; LMI-Dist runs causal models only")
    if kwargs.get("position_bias") is not None:
        raise Unpageable(f"{name} adds a position bias that LMI-Dist does not know")
    if kwargs.get("attention_mask") is not None or (len(args) > 3 and args[3] is not None):
        raise Unpageable(f"{name} brings an attention mask of its own that LMI-Dist does not know")
    return interface(module, *args, **kwargs)


def set_layer(modules: Any, layer: Any) -> None:
    """Put `layer` on each module as the one its attention is handed to."""
    for module in modules:
        object.__setattr__(module, LAYER_ATTRIBUTE, layer)


def check_layers(layers: list[LayerFacts], config: Any, name: str) -> None:
    """Raise Unpageable unless the probe saw one plain attention per layer of the model's config."""
    if len({id(layer.module) for layer in layers}) != len(layers):
        raise Unpageable(f"{name} uses one attention module several times in a pass")
    expected = config.num_hidden_layers
    if len(layers) != expected:
        raise Unpageable(
            f"{name} has {expected} layers, but {len(layers)} with attention that LMI-Dist can "
            "page: layers with a state of another kind can't be served"
        )
    kinds = getattr(config, "layer_types", None) or []
    for index, (layer, kind) in enumerate(zip(layers, kinds, strict=False)):
        if kind == "sliding_attention" and layer.window is None:
            raise Unpageable(f"{name}: layer {index} should see a window but names none")
        if kind not in ("full_attention", "sliding_attention"):
            raise Unpageable(f"{name}: layer {index} is of type {kind}, which LMI-Dist can't page")
