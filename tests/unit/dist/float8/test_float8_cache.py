"""A KV cache of FP8: what is kept, that nothing else changes, and what it costs in accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmi.core import ConfigError, ModelError
from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore
from lmi.dist.float8 import FLOAT8
from lmi.dist.kernels.base import Heads, Kernels, Segments
from lmi.dist.kernels.cpu import CpuKernels
from lmi.dist.kernels.plain import PlainKernels
from lmi.dist.kv import LayerCache, LayerShape
from lmi.dist.messages import CoreEvent, CoreRequest
from lmi.dist.native.library import LibraryMissing, load_library, set_threads
from tests.support.models import ragged_prompts
from tests.unit.dist.conftest import Serve

try:
    load_library()
except LibraryMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

CPU = torch.device("cpu")
HEADS = Heads(query=6, kv=2, size=24, rotary=16, scaling=24**-0.5)
BLOCK = 4
TOKENS = 19


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    set_threads(2)
    yield
    set_threads(1)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def attended(
    kernels: Kernels, dtype: torch.dtype, *, scales: tuple[float, float] = (1.0, 1.0)
) -> tuple[torch.Tensor, LayerCache]:
    """A prompt's attention output, and the cache that it filled."""
    cache = LayerCache(LayerShape(HEADS.kv, HEADS.size, HEADS.size, *scales), 6, BLOCK, dtype, CPU)
    places = torch.arange(TOKENS)
    width = (HEADS.query + 2 * HEADS.kv) * HEADS.size
    angles = normal(TOKENS, HEADS.rotary // 2, seed=3)
    rope = torch.cat([angles.cos(), angles.sin()], dim=-1)
    query = kernels.rotate_and_write(
        normal(TOKENS, width), rope, places, places + BLOCK, cache, HEADS, None, None, 1e-6
    ).clone()
    segments = Segments(
        spans=torch.tensor([[0, TOKENS, TOKENS]], dtype=torch.int32),
        tables=torch.tensor([[1, 2, 3, 4, 5]], dtype=torch.int32),
        decode_start=1,
        max_tokens=TOKENS,
        longest=TOKENS,
    )
    return kernels.attention(query, cache, segments, HEADS).clone(), cache


@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.03, 2.5)])
def test_the_c_kernels_keep_and_read_what_plain_torch_does(scales: tuple[float, float]) -> None:
    found, cache = attended(CpuKernels(), FLOAT8, scales=scales)
    wanted, plain = attended(PlainKernels(torch.float32), FLOAT8, scales=scales)
    same = cache.keys.view(torch.uint8) == plain.keys.view(torch.uint8)
    assert float(same.float().mean()) > 0.99  # a fused rotation may round to the next number
    assert torch.equal(cache.values.view(torch.uint8), plain.values.view(torch.uint8))
    assert float((found - wanted).norm() / wanted.norm()) < 1e-2


def test_fp8_costs_a_few_hundredths_and_scales_fit_what_is_larger() -> None:
    exact, _ = attended(CpuKernels(), torch.float32)
    found, _ = attended(CpuKernels(), FLOAT8)
    assert 1e-3 < float((found - exact).norm() / exact.norm()) < 0.04
    # What a scale of 1/1000 makes of K and V is beyond 448, and is cut there.
    cut, _ = attended(CpuKernels(), FLOAT8, scales=(1e-3, 1e-3))
    assert float((cut - exact).norm() / exact.norm()) > 0.1


def test_blocks_of_fp8_are_copied_and_scrubbed() -> None:
    _, cache = attended(CpuKernels(), FLOAT8)
    before = cache.values.view(torch.uint8).clone()
    cache.copy(torch.tensor([1, 2]), torch.tensor([5, 0]))
    assert torch.equal(cache.values[[5, 0]].view(torch.uint8), before[[1, 2]])
    cache.scrub(torch.tensor([1, 5]))
    assert not cache.keys[[1, 5]].view(torch.uint8).any()
    assert cache.keys[2].view(torch.uint8).any()


def core_of(folder: Path, **options: Any) -> EngineCore:
    return EngineCore(DistConfig(folder, dtype="float32", **options))


def tokens(events: list[CoreEvent]) -> list[int]:
    return [event.token for event in events if event.token is not None]


def test_a_token_takes_a_quarter_of_float32_and_the_log_says_fp8(llama: Path) -> None:
    size = 1 << 20
    plain, small = (
        core_of(llama, kv_cache_bytes=size, max_batch=64, kv_cache_dtype=dtype)
        for dtype in ("auto", "fp8")
    )
    assert "FP8" in dict(small.info.details)["KV cache"]
    assert "FP8" not in dict(plain.info.details)["KV cache"]
    blocks = [int(dict(core.info.details)["KV cache"].split()[0]) for core in (plain, small)]
    assert blocks[1] == 4 * blocks[0]


@pytest.mark.parametrize("runtime", ["native", "transformers"])
def test_chunks_preemption_and_shared_prefixes_change_no_token(
    llama: Path, serve: Serve, runtime: Any
) -> None:
    prompts = ragged_prompts(6, 2, longest=40)
    prompts[3] = prompts[2] = tuple(range(3, 43))
    requests = [CoreRequest(i, prompt, max_new_tokens=40) for i, prompt in enumerate(prompts)]
    options = {"runtime": runtime, "kv_cache_dtype": "fp8"}
    crowd = core_of(
        llama, **options, max_batch=6, prefill_tokens=7, kv_blocks=14, prefix_cache=True
    )
    twice = [serve(crowd, requests) for _ in range(2)]
    assert crowd.stats().preemptions > 0
    assert crowd.stats().reused_tokens > 0
    alone = core_of(llama, **options)
    for request in requests:
        wanted = tokens(serve(alone, [request])[request.id])
        assert len(wanted) > 1
        for answers in twice:
            assert tokens(answers[request.id]) == wanted


def test_a_checkpoint_s_scales_are_used_for_fp8_and_only_there(
    llama: Path, serve: Serve, tmp_path: Path
) -> None:
    tensors = load_file(llama / "model.safetensors")
    for layer in range(4):
        name = f"model.layers.{layer}.self_attn"
        tensors[f"{name}.k_scale"] = torch.tensor(0.05 * (layer + 1))
        tensors[f"{name}.v_proj.v_scale"] = torch.tensor([0.5])
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((llama / "config.json").read_bytes())
    request = CoreRequest(1, tuple(range(3, 40)), max_new_tokens=8)
    plain = tokens(serve(core_of(llama), [request])[1])
    assert tokens(serve(core_of(tmp_path), [request])[1]) == plain
    scaled = core_of(tmp_path, kv_cache_dtype="fp8")
    shapes = [cache.shape for cache in scaled._runner._caches]
    assert [round(shape.key_scale, 6) for shape in shapes] == [0.05, 0.1, 0.15, 0.2]
    assert {shape.value_scale for shape in shapes} == {0.5}
    assert len(tokens(serve(scaled, [request])[1])) == 8


@pytest.mark.parametrize("scale", [0.0, -1.0, torch.nan, torch.inf])
def test_a_scale_that_is_none_is_refused_by_name(llama: Path, tmp_path: Path, scale: float) -> None:
    tensors = load_file(llama / "model.safetensors")
    tensors["model.layers.2.self_attn.v_scale"] = torch.tensor(scale)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((llama / "config.json").read_bytes())
    with pytest.raises(ModelError, match=r"model.safetensors: model.layers.2.self_attn.v_scale"):
        core_of(tmp_path, kv_cache_dtype="fp8")


def test_the_fallback_refuses_an_fp8_cache_by_name(llama: Path) -> None:
    from lmi.dist.padded.core import PaddedCore

    config = DistConfig(llama, runtime="generate", kv_cache_dtype="fp8")
    with pytest.raises(ConfigError, match=r"kv_cache_dtype='fp8'.*expected auto"):
        PaddedCore(config, why="asked for")
