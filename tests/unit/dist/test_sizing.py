"""Context length and number of KV blocks, from wishes, model and memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmi.core import ConfigError, ModelError
from lmi.dist.config import DistConfig
from lmi.dist.sizing import Size, model_length, size_cache

KIB = 1024


def size(model_len: int = 2048, free: int = 1 << 30, **wishes: Any) -> Size:
    return size_cache(
        DistConfig(Path("model"), **wishes),
        model_len=model_len,
        note="",
        bytes_per_token=4 * KIB,
        free_bytes=free,
        share=0.5,
    )


def test_with_room_the_cache_holds_every_sequence_at_full_length() -> None:
    assert size(max_batch=2) == Size(2048, 2 * 2048 // 16)


def test_no_more_than_the_share_of_the_free_memory_is_taken() -> None:
    assert size(free=256 * 4 * KIB * 16, max_batch=32).blocks == 128


def test_a_cache_smaller_than_the_context_shortens_it_and_says_so() -> None:
    cut = size(kv_blocks=10)
    assert (cut.max_model_len, cut.blocks) == (160, 10)
    assert "2048" in cut.note
    assert "10 blocks" in cut.note
    assert size(kv_cache_bytes=10 * 16 * 4 * KIB).max_model_len == 160


def test_a_context_that_was_asked_for_is_never_shortened() -> None:
    with pytest.raises(ConfigError, match=r"max_model_len='1000'.*10 blocks"):
        size(kv_blocks=10, max_model_len=1000)
    with pytest.raises(ConfigError, match=r"max_model_len='4096'.*at most 2048"):
        size(max_model_len=4096)


def test_too_little_memory_is_said_with_the_numbers() -> None:
    with pytest.raises(ModelError, match=r"65536.*kv_cache_bytes"):
        size(free=1000)
    with pytest.raises(ModelError, match="at least 16"):
        size(kv_blocks=1, block_size=8)


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"max_seq_len": 1024}, 1024),
        ({}, 2048),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {
                    "rope_type": "longrope",
                    "original_max_position_embeddings": 4096,
                },
            },
            4096,
        ),
    ],
)
def test_the_models_length_is_read_from_its_config(config: dict[str, Any], length: int) -> None:
    assert model_length(SimpleNamespace(**config))[0] == length


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"max_batch": 0}, "max_batch"),
        ({"block_size": -1}, "block_size"),
        ({"prefill_tokens": 0}, "prefill_tokens"),
        ({"dtype": "int4"}, "dtype"),
        ({"device": "tpu"}, "device"),
        ({"kv_blocks": 1, "kv_cache_bytes": 1}, "kv_blocks"),
    ],
)
def test_a_wrong_wish_names_its_field(wishes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DistConfig(Path("model"), **wishes)
    assert caught.value.option == field
