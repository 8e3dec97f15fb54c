"""From a plain checkpoint to one of 8-bit weights, one decoder layer at a time.

In memory are the embedding, one layer in float32, and the calibration text's hidden states. Each
layer is read once: it computes what the next one gets, its channels' largest values are noted on
the way, and then it is smoothed, quantised and written. Later layers see the results of the layers
as they were, so that no layer makes up for the rounding of another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from lmi.core import ModelError
from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.dist.decoder.config import read_json
from lmi.quantize.calibration import windows
from lmi.quantize.shards import ShardWriter
from lmi.quantize.skeleton import DecoderLayer, Skeleton, open_skeleton
from lmi.quantize.smoothquant.families import Family, Group, family_of
from lmi.quantize.smoothquant.int8 import quantise, quantization_config
from lmi.quantize.smoothquant.smoothing import smooth
from lmi.text import Tokenizer

WINDOWS: Final = 32
LENGTH: Final = 128  # tokens of a window

PHASE: Final = "calibrating and quantising"
_PLAIN: Final = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """alpha: the share of the range that moves to the weights, 0 to 1; None: weights of 8 bits
    without smoothing, and without calibration. texts: the calibration data."""

    alpha: float | None
    texts: Sequence[str]
    trust_remote_code: bool = False


def write_w8a8(model: Path, folder: Path, recipe: Recipe, progress: Progress) -> None:
    """Write config.json and safetensors of the quantised model into the empty `folder`.

    Raises ModelError for a model or data that can't be used, and where an activation or a weight
    is not finite, naming it; OSError of the disk.
    """
    config = read_json(model / "config.json")
    family = family_of(config, model / "config.json")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with Checkpoint(model) as checkpoint:
        skeleton = open_skeleton(
            model, checkpoint, device=device, trust_remote_code=recipe.trust_remote_code
        )
        writer = ShardWriter(folder)
        hidden = _calibration(model, config, skeleton, recipe)
        progress(PHASE, 0, skeleton.layers)
        for index in range(skeleton.layers):
            with skeleton.layer(index) as layer:
                largest, hidden = _observe(layer, family.groups, hidden, model)
                _write_layer(layer, skeleton, checkpoint, writer, family, largest, recipe.alpha)
            progress(PHASE, index + 1, skeleton.layers)
        for name in checkpoint.names():
            if name not in writer:
                writer.add(name, checkpoint.take(name))
        writer.finish()
    config["quantization_config"] = quantization_config([family.head])
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _calibration(
    model: Path, config: dict[str, Any], skeleton: Skeleton, recipe: Recipe
) -> list[torch.Tensor]:
    """The first layer's inputs for each window: (1, tokens, hidden size)."""
    if recipe.alpha is None:
        return []
    tokenizer = Tokenizer.load(model, trust_remote_code=recipe.trust_remote_code)
    length = min(LENGTH, config.get("max_position_embeddings") or LENGTH)
    chosen = windows(tokenizer, recipe.texts, WINDOWS, length)
    largest, size = max(max(window) for window in chosen), config.get("vocab_size", 0)
    if largest >= size:
        raise ModelError(
            f"{model}: the tokenizer makes the id {largest}, but config.json has a vocab_size of "
            f"{size}: expected the model's own tokenizer"
        )
    return [skeleton.embed(window) for window in chosen]


def _observe(
    layer: DecoderLayer, groups: tuple[Group, ...], hidden: list[torch.Tensor], model: Path
) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """The largest absolute value of each channel behind each group's norm, and the layer's results.

    Without windows there is nothing to run: both are empty.
    """
    with _largest_inputs(layer, groups) as largest:
        results = [layer(window) for window in hidden]
    for norm, values in largest.items():
        if not bool(torch.isfinite(values).all()):
            raise ModelError(
                f"{model}: what {layer.name}.{norm} gives for the calibration text is not finite: "
                "the checkpoint is damaged, or was made for another version of transformers"
            )
    if not all(bool(torch.isfinite(window).all()) for window in results):
        raise ModelError(
            f"{model}: what {layer.name} gives for the calibration text is not finite: the "
            "checkpoint is damaged, or was made for another version of transformers"
        )
    return largest, results


@contextmanager
def _largest_inputs(
    layer: DecoderLayer, groups: tuple[Group, ...]
) -> Iterator[dict[str, torch.Tensor]]:
    """By a group's norm, (channels): filled while the layer runs."""
    found: dict[str, torch.Tensor] = {}

    def note(norm: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def look(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            now = inputs[0].abs().flatten(0, -2).amax(0)
            found[norm] = torch.maximum(found[norm], now) if norm in found else now

        return look

    with ExitStack() as hooks:
        for group in groups:
            # All linear layers of a group read the same.
            first = layer.module.get_submodule(group.linears[0])
            hooks.callback(first.register_forward_pre_hook(note(group.norm)).remove)
        yield found


def _write_layer(
    layer: DecoderLayer,
    skeleton: Skeleton,
    checkpoint: Checkpoint,
    writer: ShardWriter,
    family: Family,
    largest: dict[str, torch.Tensor],
    alpha: float | None,
) -> None:
    tensors = {name: parameter.data for name, parameter in layer.module.named_parameters()}
    stored = {name: skeleton.stored(f"{layer.name}.{name}") for name in tensors}
    dtypes = {name: _dtype(checkpoint, stored[name]) for name in tensors}
    if alpha is not None:
        tensors = smooth(tensors, dtypes, family.groups, largest, alpha, family.offset)
    quantised = {f"{name}.weight" for name in layer.linears()}
    for name, tensor in tensors.items():
        if name in quantised:
            values, scales = quantise(tensor, dtypes[name])
            writer.add(stored[name], values)
            writer.add(f"{stored[name]}_scale", scales)
        else:
            writer.add(stored[name], tensor.to(dtypes[name]))


def _dtype(checkpoint: Checkpoint, name: str) -> torch.dtype:
    kind = checkpoint.dtype_name(name)
    if kind not in _PLAIN:
        raise ModelError(
            f"{checkpoint.where(name)}: {name} is {kind}: expected one of {', '.join(_PLAIN)}"
        )
    return _PLAIN[kind]
