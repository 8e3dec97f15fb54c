"""How long a context may be and how many KV blocks there are. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from lmi.core import ModelError
from lmi.dist.config import DistConfig

# Share of the free memory that the KV cache may take by default. A host has other users than us.
HOST_SHARE: Final = 0.4
CUDA_SHARE: Final = 0.85

MIN_CONTEXT: Final = 16  # tokens; the self-check needs some of them

# The names that the context length has in config.json, in the order they are asked.
_LENGTH_NAMES: Final = ("max_position_embeddings", "max_seq_len", "seq_length", "n_positions")
_DEFAULT_LENGTH: Final = 2048  # for models that set no limit (ALiBi)


@dataclass(frozen=True, slots=True)
class Size:
    """blocks: those that can be given out (the trash block comes on top). note: why the context is
    shorter than the model's, or empty."""

    max_model_len: int
    blocks: int
    note: str = ""


def model_length(config: Any) -> tuple[int, str]:
    """Tokens that the model was made for, and a note where LMI-Dist serves fewer."""
    length = next(
        (
            v
            for name in _LENGTH_NAMES
            if isinstance(v := getattr(config, name, None), int) and v > 0
        ),
        _DEFAULT_LENGTH,
    )
    rope = getattr(config, "rope_parameters", None) or {}
    original = rope.get("original_max_position_embeddings") or getattr(
        config, "original_max_position_embeddings", None
    )
    if rope.get("rope_type") == "longrope" and original and original < length:
        # Its long factors would apply to every request of a batch as soon as one is long.
        return original, f"of {length}: longrope beyond {original} changes all requests of a batch"
    return length, ""


def size_cache(
    config: DistConfig,
    *,
    model_len: int,
    note: str,
    bytes_per_token: int,
    free_bytes: int,
    share: float,
) -> Size:
    """Decide context length and KV blocks from the wishes, the model and the memory."""
    wanted = config.max_model_len
    if wanted is not None and wanted > model_len:
        raise config.error("max_model_len", f"the model holds at most {model_len} tokens {note}")
    length = wanted or model_len
    size = config.block_size
    blocks = _blocks(config, length, bytes_per_token * size, int(free_bytes * share))
    if length > blocks * size:
        if wanted is not None:
            raise config.error(
                "max_model_len", f"the KV cache has {blocks} blocks of {size} tokens: too few"
            )
        note = f"of {length}: the KV cache has {blocks} blocks of {size} tokens"
        length = blocks * size
    if length < MIN_CONTEXT:
        raise ModelError(
            f"a context of {length} tokens is too short: expected at least {MIN_CONTEXT}; "
            "see max_model_len, kv_blocks and kv_cache_bytes"
        )
    return Size(length, blocks, note)


def _blocks(config: DistConfig, length: int, block_bytes: int, budget: int) -> int:
    if config.kv_blocks is not None:
        return config.kv_blocks
    # All that max_batch full contexts need.
    most = config.max_batch * -(-length // config.block_size)
    if config.kv_cache_bytes is not None:
        budget = config.kv_cache_bytes
    blocks = min(most, budget // block_bytes)
    if blocks < 1:
        raise ModelError(
            f"the KV cache has {budget} bytes, but one block of {config.block_size} tokens takes "
            f"{block_bytes}: free memory, or set kv_cache_bytes"
        )
    return blocks
