"""From a folder to our own decoder, ready for its KV caches."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lmi.dist.collectives.base import Collective
from lmi.dist.config import DistConfig
from lmi.dist.decoder.checkpoint import Checkpoint
from lmi.dist.decoder.config import DecoderConfig
from lmi.dist.decoder.decoder import Decoder
from lmi.dist.decoder.shard import Shard, splits_vocabulary
from lmi.dist.decoder.weights import WeightReader
from lmi.dist.device import choose_device, choose_dtype, dtype_named
from lmi.dist.kernels.choose import choose_kernels, computing_threads, widens
from lmi.dist.kv import LayerShape, cache_dtype
from lmi.dist.model import ModelFacts
from lmi.dist.quantized.cache_scales import read_cache_scales
from lmi.dist.quantized.choose import check_label, choose_reader

Progress = Callable[[str, int, int], None]


@torch.inference_mode()
def load_decoder(
    config: DistConfig,
    decoder_config: DecoderConfig,
    progress: Progress,
    collective: Collective | None = None,
) -> Decoder:
    """Read this rank's weights. Raises ConfigError or ModelError; may take minutes."""
    device = choose_device(config)
    dtype = _dtype(config, device, dtype_named(decoder_config.dtype))
    kernels = choose_kernels(config, device, dtype)
    shard = Shard() if collective is None else Shard(collective.rank, collective.size)
    heads = shard.part(decoder_config.kv_heads, "KV heads")
    shard.part(decoder_config.heads, "heads")
    quantized = choose_reader(config, decoder_config.quantization)
    with Checkpoint(config.model) as checkpoint:
        check_label(checkpoint, decoder_config.quantization)
        layers = _layers(config, decoder_config, checkpoint, heads[1] - heads[0])
        reader = WeightReader(decoder_config, checkpoint, kernels, shard, dtype, device, quantized)
        weights = reader.read(progress)
    windows = sorted({window for window in decoder_config.windows if window is not None})
    facts = ModelFacts(
        kind=decoder_config.kind,
        device=device,
        dtype=dtype,
        vocab_size=decoder_config.vocab_size,
        eos_ids=decoder_config.eos_ids,
        layers=layers,
        model_len=decoder_config.max_positions,
        length_note="",
        kernels=kernels,
        details=(
            ("runtime", "LMI-Dist's own decoder"),
            ("kernels", kernels.name),
            ("threads", str(computing_threads(config))),
            (
                "weights",
                f"{weights.nbytes / 2**20:.0f} MiB" + (f", {quantized.label}" if quantized else ""),
            ),
            ("attention", "paged" + (f", window {windows[0]}" if windows else "")),
        ),
        cache_dtype=cache_dtype(config, device),
    )
    return Decoder(
        decoder_config,
        weights,
        kernels,
        facts,
        collective,
        positions=min(facts.model_len, config.max_model_len or facts.model_len),
        gathers_logits=splits_vocabulary(decoder_config, shard),
    )


def _layers(
    config: DistConfig, shape: DecoderConfig, checkpoint: Checkpoint, kv_heads: int
) -> tuple[LayerShape, ...]:
    """What each layer keeps; an FP8 cache by the checkpoint's scales, where it has some."""
    layers = []
    for index in range(shape.layers):
        scales = read_cache_scales(checkpoint, f"model.layers.{index}.self_attn")
        if config.kv_cache_dtype == "auto":
            scales = (1.0, 1.0)
        layers.append(LayerShape(kv_heads, shape.head_size, shape.head_size, *scales))
    return tuple(layers)


def _dtype(config: DistConfig, device: torch.device, checkpoint: torch.dtype | None) -> torch.dtype:
    """For auto the checkpoint's own where that costs nothing: it moves the least memory."""
    if config.dtype == "auto" and checkpoint is not None and widens(config, device):
        return checkpoint
    return choose_dtype(config, device, checkpoint)
