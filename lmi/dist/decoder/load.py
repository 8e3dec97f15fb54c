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
from lmi.dist.kernels.choose import choose_kernels, computing_threads
from lmi.dist.kv import LayerShape
from lmi.dist.model import ModelFacts

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
    dtype = choose_dtype(config, device, dtype_named(decoder_config.dtype))
    kernels = choose_kernels(config, device, dtype)
    shard = Shard() if collective is None else Shard(collective.rank, collective.size)
    heads = shard.part(decoder_config.kv_heads, "KV heads")
    shard.part(decoder_config.heads, "heads")
    with Checkpoint(config.model) as checkpoint:
        reader = WeightReader(decoder_config, checkpoint, kernels, shard, dtype, device)
        weights = reader.read(progress)
    shape = LayerShape(heads[1] - heads[0], decoder_config.head_size, decoder_config.head_size)
    windows = sorted({window for window in decoder_config.windows if window is not None})
    facts = ModelFacts(
        kind=decoder_config.kind,
        device=device,
        dtype=dtype,
        vocab_size=decoder_config.vocab_size,
        eos_ids=decoder_config.eos_ids,
        layers=(shape,) * decoder_config.layers,
        model_len=decoder_config.max_positions,
        length_note="",
        kernels=kernels,
        details=(
            ("runtime", "LMI-Dist's own decoder"),
            ("kernels", kernels.name),
            ("threads", str(computing_threads(config))),
            ("weights", f"{weights.nbytes / 2**20:.0f} MiB"),
            ("attention", "paged" + (f", window {windows[0]}" if windows else "")),
        ),
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
