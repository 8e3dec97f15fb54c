"""The core with shared prompts, forked choices and guessed tokens: the same answers, less work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lmi.core import Finish
from lmi.dist.config import DistConfig
from lmi.dist.core import EngineCore
from lmi.dist.messages import CoreEvent, CoreRequest
from tests.support.models import make_model, ragged_prompts
from tests.unit.dist.conftest import Serve

pytestmark = pytest.mark.slow

PROMPTS = ragged_prompts(6, 2, longest=60)
LONG = max(PROMPTS, key=len)
FEATURES: dict[str, Any] = {"prefix_cache": True, "speculative_tokens": 4, "speculative_ngram": 3}
# A text that a random model goes on repeating, so that guesses come true.
REPEATING = tuple([11, 12, 13, 14] * 6)


def new_core(folder: Path, **options: Any) -> EngineCore:
    return EngineCore(DistConfig(folder, dtype="float32", kernels="plain", **options))


def tokens(events: list[CoreEvent], choice: int = 0) -> list[int]:
    return [e.token for e in events if e.token is not None and e.choice == choice]


@pytest.fixture(scope="module")
def dull(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers soon go round in circles: the next token follows from the last."""
    folder = make_model(tmp_path_factory.mktemp("dull") / "llama", "llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(0.02)
    model.save_pretrained(folder)
    return folder


OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "seed": 1},
    {"temperature": 0.8, "top_k": 10, "seed": 2, "logprobs": 2},
    {"temperature": 0.3, "top_p": 0.7, "seed": 3},
    {"repetition_penalty": 3.0},
    {"stop_token_ids": tuple(range(3, 20))},
    {"temperature": 1.0, "seed": -5, "choices": 3},
    {"prompt_logprobs": True, "logprobs": 1, "choices": 2},
    {"min_new_tokens": 20, "stop_token_ids": tuple(range(3, 200)), "temperature": 0.4, "seed": 9},
    {"logprobs": 0},
]


@pytest.mark.parametrize("runtime", ["native", "transformers"])
def test_features_together_change_no_answer(dull: Path, serve: Serve, runtime: str) -> None:
    requests = []
    for number, extra in enumerate(OPTIONS):
        # Pairs of prompts that begin alike.
        prompt = (*LONG[: 20 + number // 2], 5 + number % 2, 6)
        requests.append(CoreRequest(number, prompt, max_new_tokens=50, **extra))
    plain = new_core(dull, runtime=runtime)
    crowd = new_core(
        dull,
        runtime=runtime,
        max_batch=5,
        prefill_tokens=32,
        kv_blocks=24,
        block_size=8,
        **FEATURES,
    )
    found = serve(crowd, requests)
    stats = crowd.stats()
    assert stats.preemptions > 0
    assert stats.chunks > 0
    assert stats.reused_tokens > 100
    assert stats.guessed_tokens > stats.accepted_tokens > 20
    for request in requests:
        want = serve(plain, [request])[request.id]
        for choice in range(request.choices):
            left = [e for e in found[request.id] if e.choice == choice]
            right = [e for e in want if e.choice == choice]
            assert tokens(left, choice) == tokens(right, choice)
            assert [e.finish for e in left] == [e.finish for e in right]
            assert [e.logprob for e in left] == pytest.approx([e.logprob for e in right], abs=1e-4)
            assert [[i for i, _ in e.top] for e in left] == [[i for i, _ in e.top] for e in right]
            prompts = [e.detail.prompt for e in left if e.detail is not None and e.detail.prompt]
            assert len(prompts) == (request.prompt_logprobs and choice == 0)
    assert crowd.stats().kv_blocks_used == 0


def test_guesses_that_come_true_save_steps(dull: Path, serve: Serve) -> None:
    request = CoreRequest(1, PROMPTS[0], 60, ignore_eos=True)
    plain, guessing = new_core(dull), new_core(dull, speculative_tokens=4)
    want, found = serve(plain, [request])[1], serve(guessing, [request])[1]
    assert tokens(found) == tokens(want)
    stats = guessing.stats()
    assert stats.steps == plain.stats().steps - stats.accepted_tokens
    assert stats.accepted_tokens > 20
    assert stats.prompt_tokens == len(PROMPTS[0]), "a guess that came true is not computed again"


def test_choices_compute_their_prompt_once(llama: Path, serve: Serve) -> None:
    core = new_core(llama)
    events = serve(core, [CoreRequest(1, LONG, 8, temperature=1.0, seed=7, choices=4)])[1]
    assert core.stats().prompt_tokens == len(LONG) + 3
    assert core.stats().reused_tokens == 3 * (len(LONG) - 1)
    for choice in range(4):
        assert len(tokens(events, choice)) == 8
    assert all(e.detail is None for e in events), "a fork is no news of a cache"


def test_the_cached_part_of_a_prompt_is_reported_with_its_first_token(
    llama: Path, serve: Serve
) -> None:
    core = new_core(llama, prefix_cache=True, block_size=8)
    first = serve(core, [CoreRequest(1, LONG, 6)])[1]
    again = serve(core, [CoreRequest(2, LONG, 6, choices=2)])[2]
    assert tokens(again) == tokens(first)
    assert all(e.detail is None for e in first)
    cached = (len(LONG) - 1) // 8 * 8
    told = [(e.choice, e.detail.cached_tokens) for e in again if e.detail is not None]
    assert sorted(told) == [(0, cached), (1, cached)]


def test_poison_leaves_the_prefix_cache(tmp_path: Path, serve: Serve) -> None:
    folder = make_model(tmp_path / "llama", "llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        model.get_input_embeddings().weight[300] = torch.nan  # only this token is poison
    model.save_pretrained(folder)
    core = new_core(folder, kv_blocks=12, prefix_cache=True, prefill_tokens=20)
    clean = CoreRequest(1, tuple(t for t in LONG if t != 300), 20)
    want = tokens(serve(core, [clean])[1])
    poison = (*clean.prompt, 300, *clean.prompt)
    events = serve(core, [CoreRequest(i, poison, 20, choices=2) for i in (2, 3)])
    ended = [e.finish for found in events.values() for e in found]
    assert ended == [Finish.ERROR] * 4
    assert core.stats().kv_blocks_used == 0
    again = serve(core, [CoreRequest(4, clean.prompt, 20), CoreRequest(5, PROMPTS[0], 20)])
    assert tokens(again[4]) == want
    assert tokens(again[5]) == tokens(serve(new_core(folder), [CoreRequest(5, PROMPTS[0], 20)])[5])


def test_one_choice_can_be_cancelled(llama: Path) -> None:
    core = new_core(llama, max_batch=2)
    core.add(CoreRequest(1, LONG, 10, temperature=1.0, seed=3, choices=4, ignore_eos=True))
    core.step()
    core.cancel(1, 0)
    core.cancel(1, 3)
    core.cancel(1, 0)
    core.cancel(1, 9)
    events = core.step()
    while core.has_work:
        events += core.step()
    finishes = {e.choice: e.finish for e in events if e.finish is not None}
    assert finishes == {
        0: Finish.CANCELLED,
        1: Finish.LENGTH,
        2: Finish.LENGTH,
        3: Finish.CANCELLED,
    }
    assert core.stats().cancelled == 2
    assert core.stats().kv_blocks_used == 0
